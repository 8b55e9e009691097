//! Who adds adapters.

/// Who added a version of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddedBy {
    /// Whoever started the server.
    CommandLine,
    /// The file of adapters.
    AdaptersFile,
    /// A request whose model nobody had added.
    Request,
    /// A call of a management route.
    #[default]
    Http,
}

impl AddedBy {
    const ALL: [Self; 4] = [Self::CommandLine, Self::AdaptersFile, Self::Request, Self::Http];

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommandLine => "command line",
            Self::AdaptersFile => "adapters file",
            Self::Request => "request",
            Self::Http => "http",
        }
    }

    /// The one that is written as `text`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == text)
    }
}
