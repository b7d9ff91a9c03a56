//! The published JSON schema accepts what this crate writes and judges every vector as the vector says.
//!
//! The validator below knows just the keywords that the schema uses and panics at any other, so that nothing in the
//! schema can go unchecked.

use serde_json::Value;

const SCHEMA: &str = include_str!("../schema/oto.v1.json");

struct Schema {
    root: Value,
}

impl Schema {
    fn load() -> Schema {
        Schema { root: serde_json::from_str(SCHEMA).expect("the schema is JSON") }
    }

    fn accepts(&self, definition: &str, value: &Value) -> bool {
        self.check(&self.root["$defs"][definition], value)
    }

    fn check(&self, schema: &Value, value: &Value) -> bool {
        let keywords = schema.as_object().expect("a schema is an object");
        keywords.iter().all(|(keyword, rule)| self.check_keyword(keyword, rule, value))
    }

    fn check_keyword(&self, keyword: &str, rule: &Value, value: &Value) -> bool {
        let list = || rule.as_array().expect("this keyword has a list");
        let limit = || rule.as_f64().expect("this keyword has a number");
        match keyword {
            "description" | "title" | "$schema" | "$defs" => true,
            "$ref" => {
                let pointer =
                    rule.as_str().and_then(|r| r.strip_prefix('#')).expect("references stay inside");
                self.check(self.root.pointer(pointer).expect("references lead somewhere"), value)
            }
            "oneOf" => list().iter().filter(|schema| self.check(schema, value)).count() == 1,
            "const" => rule == value,
            "enum" => list().contains(value),
            "type" => has_type(rule.as_str().expect("one type at a time"), value),
            "required" => value
                .as_object()
                .is_none_or(|o| list().iter().all(|k| o.contains_key(k.as_str().unwrap_or_default()))),
            "properties" => {
                let rules = rule.as_object().expect("properties are an object");
                value.as_object().is_none_or(|object| {
                    rules.iter().all(|(name, schema)| object.get(name).is_none_or(|v| self.check(schema, v)))
                })
            }
            "items" => value.as_array().is_none_or(|items| items.iter().all(|item| self.check(rule, item))),
            "minimum" => value.as_f64().is_none_or(|number| number >= limit()),
            "maximum" => value.as_f64().is_none_or(|number| number <= limit()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as f64 >= limit()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as f64 <= limit()),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() as f64 >= limit()),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as f64 <= limit()),
            _ => panic!("the schema uses the keyword {keyword:?}, which this test does not check"),
        }
    }
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        _ => panic!("the schema uses the type {name:?}, which this test does not check"),
    }
}

#[test]
fn the_schema_judges_every_vector_as_it_says() {
    let schema = Schema::load();
    let (_, messages) = oto_proto::vectors::FILES[1];
    let file: Value = serde_json::from_str(messages).expect("the vectors are JSON");
    for case in file["cases"].as_array().expect("a list of cases") {
        let text = case["text"].as_str().expect("a text");
        let from = case["from"].as_str().expect("a sender");
        // What is not JSON at all is not for the schema to judge.
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            assert_eq!(case["schema"], false, "{}", case["name"]);
            continue;
        };
        assert_eq!(schema.accepts(from, &value), case["schema"] == true, "{}", case["name"]);
        if case["schema"] == true && !case["means"].is_null() {
            assert!(schema.accepts(from, &case["means"]), "what {} means", case["name"]);
        }
    }
}

#[test]
fn every_definition_is_used() {
    let schema = Schema::load();
    for name in schema.root["$defs"].as_object().expect("definitions").keys() {
        assert!(SCHEMA.contains(&format!("\"#/$defs/{name}\"")), "{name}");
    }
}
