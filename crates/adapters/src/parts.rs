//! The files that an adapter may have.

use std::path::{Path, PathBuf};

use multigraft_peft::{
    CARD_FILE, CONFIG_FILE, CONFIG_LIMIT, TEMPLATE_LIMIT, WEIGHTS_FILE, WEIGHTS_LIMIT, gguf_files,
};
use multigraft_sources::{Need, Wanted, WantedFile};
use multigraft_text::TEMPLATE_FILES;

/// The largest model card that is fetched.
const CARD_LIMIT: u64 = 4 << 20;

/// What an adapter may bring to be tested by.
pub(crate) const REFERENCE_FILE: &str = "reference.json";

/// The largest such file.
pub(crate) const REFERENCE_LIMIT: u64 = 1 << 20;

/// What is fetched of an adapter; nothing else of its folder is looked at.
pub const ADAPTER_FILES: Wanted = Wanted {
    marker: ".multigraft-adapter",
    files: &[
        WantedFile {
            name: CONFIG_FILE,
            limit: CONFIG_LIMIT as u64,
            need: Need::Required,
        },
        WantedFile {
            name: WEIGHTS_FILE,
            limit: WEIGHTS_LIMIT,
            need: Need::Required,
        },
        WantedFile {
            name: CARD_FILE,
            limit: CARD_LIMIT,
            need: Need::Optional,
        },
        WantedFile {
            name: REFERENCE_FILE,
            limit: REFERENCE_LIMIT,
            need: Need::Optional,
        },
        template(0),
        template(1),
        template(2),
    ],
};

const fn template(index: usize) -> WantedFile {
    WantedFile {
        name: TEMPLATE_FILES[index],
        limit: TEMPLATE_LIMIT,
        need: Need::IfPresent,
    }
}

/// The files that the registry reads of a folder.
pub fn adapter_files_in(folder: &Path) -> Vec<PathBuf> {
    let named = [CONFIG_FILE, WEIGHTS_FILE, REFERENCE_FILE]
        .into_iter()
        .chain(TEMPLATE_FILES)
        .map(|name| folder.join(name));
    named.chain(gguf_files(folder).unwrap_or_default()).collect()
}
