//! vLLM's `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`: vLLM's LoRA resolvers and the
//! syncer of the Gateway API's inference extension call them.

use multigraft_adapters::{AddedBy, Adding};

use crate::{
    caller::session::Session,
    http::{error::ApiError, fields::Fields},
};

/// `POST /v1/load_lora_adapter`.
pub(crate) async fn load(session: Session, mut fields: Fields) -> Result<String, ApiError> {
    let (name, path) = (fields.string("lora_name")?, fields.string("lora_path")?);
    let replace = fields.flag("load_inplace")?.unwrap_or(false);
    fields.refuse(
        "is_3d_lora_weight",
        "weights of experts in three dimensions",
        |value| *value == false,
    )?;
    // The name of the base has no effect, because there is only one base.
    fields.ignore(&["base_model_name"]);
    fields.finish()?;
    let (Some(name), Some(path)) = (
        name.filter(|name| !name.is_empty()),
        path.filter(|path| !path.is_empty()),
    ) else {
        let message = "Both 'lora_name' and 'lora_path' must be provided.".to_owned();
        return Err(ApiError::Unusable(message));
    };
    if session.contains(&name) && !replace {
        let message = format!(
            "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set \
             'load_inplace' to True."
        );
        return Err(ApiError::Unusable(message));
    }
    let adding = Adding {
        replace,
        pinned: None,
        by: AddedBy::Http,
        ..Adding::default()
    };
    session.add_adapter(&name, &path, adding).await?;
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

/// `POST /v1/unload_lora_adapter`.
pub(crate) async fn unload(session: Session, mut fields: Fields) -> Result<String, ApiError> {
    let name = fields.string("lora_name")?;
    // vLLM's internal number of the adapter.
    fields.ignore(&["lora_int_id"]);
    fields.finish()?;
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(ApiError::Unusable(
            "'lora_name' needs to be provided to unload a LoRA adapter.".to_owned(),
        ));
    };
    session.remove_adapter(&name, false).await?;
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}
