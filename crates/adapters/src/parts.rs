//! The files of an adapter.

use std::path::{Path, PathBuf};

use multigraft_peft::{
    CARD_FILE, CONFIG_FILE, CONFIG_LIMIT, TEMPLATE_LIMIT, WEIGHTS_FILE, WEIGHTS_LIMIT, gguf_files,
};
use multigraft_sources::{Need, Wanted, WantedFile};
use multigraft_text::TEMPLATE_FILES;

/// The largest model card that is downloaded, in bytes.
const CARD_LIMIT: u64 = 4 << 20;

/// The file with the answers that the self test expects.
pub(crate) const REFERENCE_FILE: &str = "reference.json";

/// The largest such file, in bytes.
pub(crate) const REFERENCE_LIMIT: u64 = 1 << 20;

/// The files that are downloaded. All other files of a source are ignored.
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

/// The paths of the files in a folder that the registry may read, whether or not they exist.
pub fn adapter_files_in(folder: &Path) -> Vec<PathBuf> {
    let named = [CONFIG_FILE, WEIGHTS_FILE, REFERENCE_FILE]
        .into_iter()
        .chain(TEMPLATE_FILES)
        .map(|name| folder.join(name));
    named.chain(gguf_files(folder).unwrap_or_default()).collect()
}
