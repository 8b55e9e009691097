//! Who added an adapter.

/// Who added a version of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddedBy {
    /// An argument or setting of the server's start.
    CommandLine,
    /// The adapters file (`--adapters-file`).
    AdaptersFile,
    /// A request that named an adapter which nobody had added.
    Request,
    /// A management route.
    #[default]
    Http,
}

impl AddedBy {
    const ALL: [Self; 4] = [Self::CommandLine, Self::AdaptersFile, Self::Request, Self::Http];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommandLine => "command line",
            Self::AdaptersFile => "adapters file",
            Self::Request => "request",
            Self::Http => "http",
        }
    }

    /// Parses the result of [`AddedBy::as_str`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == text)
    }
}
