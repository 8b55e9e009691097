//! The dialects that routes speak.

/// How requests, answers and errors are shaped. The table of routes names the dialect of each
/// route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's API, with the error shape and extra parameters of vLLM.
    OpenAi,
    /// The API of Hugging Face's text-generation-inference, with LoRAX's additions.
    Tgi,
}

impl Dialect {
    /// The dialect of the 404 for a `path` that no route serves: OpenAI's below `/v1`, where the
    /// base URLs of OpenAI's clients point, else TGI's.
    pub(super) fn of_unknown_path(path: &str) -> Self {
        match path == "/v1" || path.starts_with("/v1/") {
            true => Self::OpenAi,
            false => Self::Tgi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_below_v1_are_refused_in_openais_shape_and_all_others_in_tgis() {
        for path in ["/v1", "/v1/", "/v1/no/such"] {
            assert_eq!(Dialect::of_unknown_path(path), Dialect::OpenAi, "{path}");
        }
        for path in ["/no", "/generate/no", "/v10", "/info/"] {
            assert_eq!(Dialect::of_unknown_path(path), Dialect::Tgi, "{path}");
        }
    }
}
