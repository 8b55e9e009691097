//! The field `object` of answers, which names their type.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// Adds the field `object` to a schema. serde writes it as the tag of the struct; schemars leaves
/// tags of structs out.
pub(crate) fn object(name: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        let mut properties = Map::new();
        properties.insert("object".to_owned(), json!({"type": "string", "const": name}));
        if let Some(Value::Object(others)) = schema.remove("properties") {
            properties.extend(others);
        }
        schema.insert("properties".to_owned(), properties.into());
        let mut required = vec![Value::from("object")];
        if let Some(Value::Array(others)) = schema.remove("required") {
            required.extend(others);
        }
        schema.insert("required".to_owned(), required.into());
    }
}

#[cfg(test)]
mod tests {
    use schemars::{JsonSchema, generate::SchemaSettings};

    use super::*;
    use crate::{Adapter, Adapters, Key, Keys, UsageReport};

    fn schema<T: JsonSchema>() -> Value {
        let mut settings = SchemaSettings::draft2020_12().for_serialize();
        settings.inline_subschemas = true;
        settings.into_generator().into_root_schema_for::<T>().into()
    }

    #[test]
    fn schemas_have_the_field() {
        for (schema, name, data) in [
            (schema::<Adapter>(), "adapter", None),
            (schema::<Adapters>(), "list", Some("adapter")),
            (schema::<Key>(), "key", None),
            (schema::<Keys>(), "list", Some("key")),
            (schema::<UsageReport>(), "list", None),
        ] {
            assert_eq!(schema["properties"]["object"]["const"], name);
            assert_eq!(schema["required"][0], "object");
            if let Some(data) = data {
                let items = &schema["properties"]["data"]["items"];
                assert_eq!(items["properties"]["object"]["const"], data);
            }
        }
    }
}
