//! Values between a page and Rust, by serde-wasm-bindgen: plain JavaScript objects there, trees here. Names have two spellings,
//! `batchSize` there and `batch_size` here, and each name of one has exactly one in the other. The value of `kind` is a name, too.

use oto_json::{Json, JsonError, Number, ToJson, to_tree};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::cell::RefCell;
use std::fmt;
use wasm_bindgen::JsValue;

/// Most lists and objects in each other, as in a JSON text: the reader calls itself for each.
const MAX_DEPTH: usize = 128;

/// Gives a value to the page.
pub fn give<T: ToJson + ?Sized>(value: &T) -> JsValue {
    give_tree(&to_tree(value))
}

/// Gives a tree to the page.
pub fn give_tree(tree: &Json) -> JsValue {
    let serializer = serde_wasm_bindgen::Serializer::json_compatible();
    // Keys are texts and numbers are doubles: the serializer refuses nothing of a tree.
    Given(tree).serialize(&serializer).unwrap_or_default()
}

/// Takes a value from the page.
pub fn take(value: JsValue) -> Result<Json, JsonError> {
    read(serde_wasm_bindgen::Deserializer::from(value))
}

/// `batch_size` as `batchSize`.
pub fn camel(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek().copied()) {
            ('_', Some(next)) if next.is_ascii_lowercase() || next == '_' => {
                letters.next();
                text.push(next.to_ascii_uppercase());
            }
            _ => text.push(letter),
        }
    }
    text
}

/// `batchSize` as `batch_size`. An underscore is doubled, so that a name in the other spelling is unknown here.
fn snake(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() || letter == '_' {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// A tree on its way to the page.
struct Given<'a>(&'a Json);

impl Serialize for Given<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Null => to.serialize_unit(),
            Json::Bool(value) => to.serialize_bool(*value),
            Json::Number(Number::Unsigned(value)) => to.serialize_f64(*value as f64),
            Json::Number(Number::Negative(value)) => to.serialize_f64(*value as f64),
            Json::Number(Number::Real(value)) => to.serialize_f64(*value),
            Json::Text(value) => to.serialize_str(value),
            Json::List(list) => to.collect_seq(list.iter().map(Given)),
            Json::Object(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(camel(key).as_str(), &Given(value))?;
                }
                map.end()
            }
        }
    }
}

/// Reads a tree; an error has the place of the value that does not fit.
fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Json, JsonError> {
    let place = RefCell::new(String::new());
    let read = Place { path: &place, depth: 0 }.deserialize(from);
    read.map_err(|error| {
        let message = error.to_string();
        let message = message.strip_prefix("Error: ").unwrap_or(&message).into();
        JsonError { path: place.take(), message }
    })
}

/// The place of a value. The path is that of the value that is read now.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a RefCell<String>,
    depth: usize,
}

impl Place<'_> {
    /// Reads what is at this entry. A failure leaves its path.
    fn at<T, E>(self, entry: &str, read: impl FnOnce(Self) -> Result<T, E>) -> Result<T, E> {
        let length = self.path.borrow().len();
        let separator = if length == 0 || entry.starts_with('[') { "" } else { "." };
        *self.path.borrow_mut() += separator;
        *self.path.borrow_mut() += entry;
        let value = read(Self { depth: self.depth + 1, ..self })?;
        self.path.borrow_mut().truncate(length);
        Ok(value)
    }

    fn check_depth<E: de::Error>(self) -> Result<(), E> {
        if self.depth < MAX_DEPTH {
            Ok(())
        } else {
            Err(E::custom("too many lists and objects in each other"))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain data")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(u64::try_from(value).map_or(Number::Negative(value), Number::Unsigned)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(Number::Unsigned(value)))
    }

    /// A whole number over 2^53 is a double of JavaScript, too.
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        if !value.is_finite() {
            return Err(E::custom("expected a finite number"));
        }
        let whole = value.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&value);
        Ok(Json::Number(if whole { Number::Unsigned(value as u64) } else { Number::Real(value) }))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        while let Some(value) =
            self.at(&format!("[{}]", list.len()), |place| items.next_element_seed(place))?
        {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        self.check_depth()?;
        let mut object = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            let key = snake(&key);
            let mut value = self.at(&key, |place| entries.next_value_seed(place))?;
            if let ("kind", Json::Text(name)) = (key.as_str(), &mut value) {
                *name = snake(name);
            }
            object.push((key, value));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<Json, JsonError> {
        read(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn every_name_has_one_other_spelling() {
        for (here, there) in [
            ("batch_size", "batchSize"),
            ("beta1", "beta1"),
            ("rkd_d", "rkdD"),
            ("batch__size", "batch_size"),
            ("__a", "_a"),
            ("a_", "a_"),
        ] {
            assert_eq!(camel(here), there);
            if here != "a_" {
                assert_eq!(snake(there), here);
                assert_eq!(camel(&snake(there)), there);
            }
        }
        assert_eq!(camel(&snake("a_B__cD_")), "a_B__cD_");
    }

    #[test]
    fn a_value_crosses_with_the_names_of_the_other_side() {
        let text = r#"{"newEpisodes":[{"lastReturn":1.5,"at":null}],"done":true,"name":"best_plan","n":-3}"#;
        let tree = taken(text).unwrap();
        let here =
            r#"{"new_episodes":[{"last_return":1.5,"at":null}],"done":true,"name":"best_plan","n":-3}"#;
        assert_eq!(tree, oto_json::parse(here).unwrap());
        let back = serde_json::to_string(&Given(&tree)).unwrap();
        assert_eq!(back, text.replace("-3", "-3.0"));
    }

    #[test]
    fn a_kind_is_a_name() {
        let tree = taken(r#"{"kind":"multiDiscrete","name":"multiDiscrete"}"#).unwrap();
        assert_eq!(tree.get("kind"), Some(&Json::Text("multi_discrete".into())));
        assert_eq!(tree.get("name"), Some(&Json::Text("multiDiscrete".into())));
    }

    #[test]
    fn whole_numbers_are_those_of_a_text() {
        for (double, number) in [
            (5.0, Number::Unsigned(5)),
            (2f64.powi(60), Number::Unsigned(1 << 60)),
            (1e20, Number::Real(1e20)),
            (0.5, Number::Real(0.5)),
            (-1.5, Number::Real(-1.5)),
        ] {
            let visitor = Place { path: &RefCell::default(), depth: 0 };
            assert_eq!(visitor.visit_f64::<de::value::Error>(double), Ok(Json::Number(number)));
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_its_place() {
        struct Infinite;
        impl<'de> Deserializer<'de> for Infinite {
            type Error = de::value::Error;
            fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
                visitor.visit_f64(f64::INFINITY)
            }
            serde::forward_to_deserialize_any! {
                bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
                newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
            }
        }
        impl<'de> de::IntoDeserializer<'de> for Infinite {
            type Deserializer = Self;
            fn into_deserializer(self) -> Self {
                self
            }
        }
        let entries = [("batchSize", Infinite)].into_iter();
        let error = read(de::value::MapDeserializer::new(entries)).unwrap_err();
        assert_eq!((error.path.as_str(), error.message.as_str()), ("batch_size", "expected a finite number"));
        let error = read(de::value::SeqDeserializer::new([Infinite].into_iter())).unwrap_err();
        assert_eq!(error.path, "[0]");
    }

    /// Lists in each other.
    struct Nested(usize);

    impl<'de> Deserializer<'de> for Nested {
        type Error = de::value::Error;
        fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            let inner = self.0.checked_sub(1).map(Nested);
            visitor.visit_seq(de::value::SeqDeserializer::new(inner.into_iter()))
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
        }
    }

    impl<'de> de::IntoDeserializer<'de> for Nested {
        type Deserializer = Self;
        fn into_deserializer(self) -> Self {
            self
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        assert!(read(Nested(MAX_DEPTH - 1)).is_ok());
        let error = read(Nested(1_000_000)).unwrap_err();
        assert_eq!(error.message, "too many lists and objects in each other");
        assert_eq!(error.path, "[0]".repeat(MAX_DEPTH));
    }
}
