//! Reading JSON: control messages, configurations, what a checkpoint says of itself. A key may be there once, a number must
//! fit its place, and an error names the place. One reader for everything: code made for each pair of a type and a reader
//! was a third of what a page downloads.

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, Unexpected};
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::{Map, Value};
use std::fmt;

/// Why JSON could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Where, as in `stages.transfer.steps` or `hidden[1]`; empty where it is the whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

impl std::error::Error for JsonError {}

/// The same in one word: it is passed through every function below.
#[derive(Debug)]
struct Failure(Box<JsonError>);

impl Failure {
    #[inline(never)]
    fn new(message: &dyn fmt::Display) -> Self {
        Self(Box::new(JsonError { path: String::new(), message: message.to_string() }))
    }

    /// With its place, unless it has one from further inside.
    #[inline(never)]
    fn at(mut self, path: &Path<'_>) -> Self {
        if self.0.path.is_empty() {
            self.0.path = path.to_string();
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(&message)
    }
}

/// Reads a value of this type from a text.
///
/// # Errors
/// No JSON, a key that is there twice, a value that does not fit.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, JsonError> {
    from_value(&parse(text)?)
}

/// Reads a value of this type from a tree.
///
/// # Errors
/// A value that does not fit.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, JsonError> {
    T::deserialize(At { value, path: &Path::Root }).map_err(|Failure(error)| *error)
}

/// Reads a text as a tree.
///
/// # Errors
/// No JSON, or a key that is there twice.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    let tree = serde_json::from_str::<Tree>(text).map(|Tree(value)| value);
    tree.map_err(|error| JsonError { path: String::new(), message: error.to_string() })
}

/// A tree whose keys are unique: serde_json's own keeps the last of two.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct TreeVisitor;
        impl<'de> Visitor<'de> for TreeVisitor {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree(Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree(Value::Bool(value)))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree(value.into()))
            }
            fn visit_string<E>(self, value: String) -> Result<Tree, E> {
                Ok(Tree(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(Tree(value)) = items.next_element()? {
                    list.push(value);
                }
                Ok(Tree(list.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
                let mut map = Map::new();
                while let Some(key) = entries.next_key::<String>()? {
                    if map.contains_key(&key) {
                        return Err(de::Error::custom(format_args!("duplicate field `{key}`")));
                    }
                    let Tree(value) = entries.next_value()?;
                    map.insert(key, value);
                }
                Ok(Tree(map.into()))
            }
        }
        from.deserialize_any(TreeVisitor)
    }
}

/// The way from the whole to a place in it.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(before, key) => write!(f, "{before}.{key}"),
            Path::Index(before, index) => write!(f, "{before}[{index}]"),
        }
    }
}

/// A value and where it is. Every kind of value has a method of its own below, which looks for nothing else: each is made once
/// for every type that is read.
#[derive(Clone, Copy)]
struct At<'a> {
    value: &'a Value,
    path: &'a Path<'a>,
}

impl<'a> At<'a> {
    #[inline(never)]
    fn mismatch(self, expected: &dyn de::Expected) -> Failure {
        let found = match self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(value) => match (value.as_u64(), value.as_i64()) {
                (Some(value), _) => Unexpected::Unsigned(value),
                (_, Some(value)) => Unexpected::Signed(value),
                _ => Unexpected::Float(value.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(value) => Unexpected::Str(value),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Failure::new(&format_args!("invalid type: {found}, expected {expected}"))
    }

    fn list<'de, V: Visitor<'de>>(self, list: &'a [Value], visitor: V) -> Result<V::Value, Failure> {
        let mut items = Items { list, next: 0, path: self.path };
        let value = visitor.visit_seq(&mut items)?;
        match items.next == list.len() {
            true => Ok(value),
            false => Err(Failure::new(&format_args!("invalid length {}: it has more elements", list.len()))),
        }
    }

    fn map<'de, V: Visitor<'de>>(self, map: &'a Map<String, Value>, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_map(Entries { rest: map.iter(), entry: None, path: self.path })
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let Value::Number(value) = self.value else { return Err(self.mismatch(&visitor)) };
        match (value.as_u64(), value.as_i64(), value.as_f64()) {
            (Some(value), _, _) => visitor.visit_u64(value),
            (_, Some(value), _) => visitor.visit_i64(value),
            (_, _, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::String(value) => visitor.visit_str(value),
            _ => Err(self.mismatch(&visitor)),
        }
    }
}

/// Methods that do the same as another one.
macro_rules! like {
    ($how:ident: $($name:ident($($ignored:ty),*)),*) => {
        $(fn $name<V: Visitor<'de>>(self, $(_: $ignored,)* visitor: V) -> Result<V::Value, Failure> {
            self.$how(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(_) => self.number(visitor),
            Value::String(value) => visitor.visit_str(value),
            Value::Array(list) => self.list(list, visitor),
            Value::Object(map) => self.map(map, visitor),
        }
    }

    like! { number: deserialize_i8(), deserialize_i16(), deserialize_i32(), deserialize_i64(), deserialize_i128() }
    like! { number: deserialize_u8(), deserialize_u16(), deserialize_u32(), deserialize_u64(), deserialize_u128() }
    like! { text: deserialize_char(), deserialize_str(), deserialize_string(), deserialize_identifier() }
    like! { deserialize_unit: deserialize_unit_struct(&'static str) }
    like! { deserialize_seq: deserialize_bytes(), deserialize_byte_buf(), deserialize_tuple(usize) }
    like! { deserialize_seq: deserialize_tuple_struct(&'static str, usize) }
    like! { deserialize_map: deserialize_struct(&'static str, &'static [&'static str]) }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value.as_f64() {
            Some(value) => visitor.visit_f64(value),
            None => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value.as_f64() {
            Some(value) if (value as f32).is_infinite() => Err(Failure::new(&"number out of range")),
            _ => self.deserialize_f64(visitor),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Array(list) => self.list(list, visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Object(map) => self.map(map, visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.value {
            Value::String(name) => visitor.visit_enum(Variant { name }),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }
}

struct Items<'a> {
    list: &'a [Value],
    next: usize,
    path: &'a Path<'a>,
}

impl<'de> SeqAccess<'de> for &mut Items<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(value) = self.list.get(self.next) else { return Ok(None) };
        let path = &Path::Index(self.path, self.next);
        self.next += 1;
        seed.deserialize(At { value, path }).map(Some).map_err(|error| error.at(path))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.list.len() - self.next)
    }
}

struct Entries<'a> {
    rest: serde_json::map::Iter<'a>,
    entry: Option<(&'a str, &'a Value)>,
    path: &'a Path<'a>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.entry = Some((key, value));
        let path = &Path::Key(self.path, key);
        seed.deserialize(StrDeserializer::new(key)).map(Some).map_err(|error: Failure| error.at(path))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Failure> {
        let (key, value) = self.entry.take().ok_or_else(|| Failure::new(&"a value without its key"))?;
        let path = &Path::Key(self.path, key);
        seed.deserialize(At { value, path }).map_err(|error| error.at(path))
    }
}

/// A variant by its name alone: none of ours is written with content under its name.
struct Variant<'a> {
    name: &'a str,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Failure> {
        Ok((seed.deserialize(StrDeserializer::new(self.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Failure> {
        Err(Failure::new(&"variants with content are told apart by a field"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Failure> {
        Err(Failure::new(&"variants with content are told apart by a field"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Failure> {
        Err(Failure::new(&"variants with content are told apart by a field"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Kind {
        Sized { size: u8 },
        Named { width: f32 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        kinds: Vec<Kind>,
        #[serde(default)]
        colour: Option<Colour>,
        #[serde(default)]
        width: f32,
        #[serde(default)]
        pair: Option<[f64; 2]>,
        #[serde(default)]
        inner: Option<Box<Thing>>,
    }

    #[test]
    fn every_form_is_read() {
        let text = r#"{"kinds":[{"kind":"sized","size":3},{"kind":"named","width":0.5}],"pair":[1,-2],"colour":"red",
            "inner":{"kinds":[],"width":7}}"#;
        let inner = Thing { kinds: vec![], colour: None, width: 7.0, pair: None, inner: None };
        let thing = Thing {
            kinds: vec![Kind::Sized { size: 3 }, Kind::Named { width: 0.5 }],
            colour: Some(Colour::Red),
            width: 0.0,
            pair: Some([1.0, -2.0]),
            inner: Some(Box::new(inner)),
        };
        assert_eq!(read::<Thing>(text), Ok(thing));
    }

    #[test]
    fn an_error_names_its_place() {
        for (text, path, message) in [
            (r#"{"kinds":[],"inner":{"kinds":[],"shape":1}}"#, "inner.shape", "unknown field"),
            (r#"{"kinds":[{"kind":"sized","size":300}]}"#, "kinds[0]", "300"),
            (r#"{"kinds":[],"width":1e39}"#, "width", "out of range"),
            (r#"{"kinds":[],"width":"7"}"#, "width", "expected f32"),
            (r#"{"kinds":[],"pair":[1,2,3]}"#, "pair", "length 3"),
            (r#"{"kinds":[],"pair":[1]}"#, "pair", "length 1"),
            (r#"{"kinds":[],"colour":"blue"}"#, "colour", "unknown variant"),
            (r#"{"kinds":[],"colour":{"red":1}}"#, "colour", "expected enum Colour"),
            (r#"{"kinds":[7]}"#, "kinds[0]", "expected"),
            (r#"{"inner":null}"#, "", "missing field `kinds`"),
            (r#"{"kinds":[],"kinds":[]}"#, "", "duplicate field `kinds`"),
            (r#"{"kinds":["#, "", "EOF"),
            ("7", "", "expected struct Thing"),
        ] {
            let JsonError { path: at, message: what } = read::<Thing>(text).unwrap_err();
            assert!(at == path && what.contains(message), "{text}: {at:?}, {what}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let text = "[".repeat(100_000);
        assert!(parse(&text).unwrap_err().message.contains("recursion"));
    }
}
