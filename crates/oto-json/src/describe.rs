//! How a type says once what it is in JSON: names, what may be left out, what is refused.

/// What the macros below write in the name of other crates.
#[doc(hidden)]
pub mod serde {
    use crate::{FromJson, Json, ToJson, from_tree, to_tree};
    use serde::de;
    pub use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes as serde does.
    pub fn serialize<T: ToJson, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to_tree(value).serialize(to)
    }

    /// Reads as serde does.
    pub fn deserialize<'de, T: FromJson, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        from_tree(&Json::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// Gives serde's traits to types that have ours.
#[macro_export]
macro_rules! json_serde {
    ($type:ty) => {
        $crate::json_serde! { @written $type }
        impl<'de> $crate::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::serde::deserialize(from)
            }
        }
    };
    (@written $type:ty) => {
        impl $crate::serde::Serialize for $type {
            fn serialize<S: $crate::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::serde::serialize(self, to)
            }
        }
    };
}

/// A structure as an object. `open` ignores fields it does not know, `closed` refuses them, `settings` refuses them and takes
/// what is left out from `Default` (`settings after check` calls `check` with the fields first), and `written` is never read. A field is `name`, `name as "in JSON"`, `name omit none` (an
/// option that is left out rather than `null`), `name = default`.
///
/// ```
/// #[derive(Debug, PartialEq)]
/// struct Label { class: u32, weight: f64 }
/// oto_json::json_object! { Label: closed { class as "kind", weight = 1.0 } }
/// assert_eq!(oto_json::read(r#"{"kind":3}"#), Ok(Label { class: 3, weight: 1.0 }));
/// assert_eq!(oto_json::write(&Label { class: 3, weight: 0.5 }), r#"{"kind":3,"weight":0.5}"#);
/// ```
#[macro_export]
macro_rules! json_object {
    ($type:ty: settings $(after $check:ident)? { $($field:ident $(as $name:literal)? $(omit $none:ident)?),* $(,)? }) => {
        $crate::json_object! { @write $type { $($field $(as $name)? $(omit $none)?),* } }
        $crate::json_serde! { $type }
        impl $crate::FromJson for $type {
            fn from_json(at: $crate::At<'_>) -> Result<Self, $crate::Failure> {
                let fields = at.fields()?;
                $($check(&fields)?;)?
                fields.only(&[$($crate::json_object!(@name $field $($name)?)),*])?;
                let mut read = Self::default();
                let Self { $($field),* } = &mut read;
                $(fields.put($crate::json_object!(@name $field $($name)?), $field)?;)*
                Ok(read)
            }
        }
    };
    ($type:ty: written { $($field:ident $(as $name:literal)? $(omit $none:ident)?),* $(,)? }) => {
        $crate::json_object! { @write $type { $($field $(as $name)? $(omit $none)?),* } }
        $crate::json_serde! { @written $type }
    };
    ($type:ty: $kind:ident { $($field:ident $(as $name:literal)? $(omit $none:ident)? $(= $default:expr)?),* $(,)? }) => {
        $crate::json_object! { @write $type { $($field $(as $name)? $(omit $none)?),* } }
        $crate::json_serde! { $type }
        impl $crate::FromJson for $type {
            fn from_json(at: $crate::At<'_>) -> Result<Self, $crate::Failure> {
                let fields = at.fields()?;
                $crate::json_object!(@$kind fields [$($crate::json_object!(@name $field $($name)?)),*]);
                Ok(Self { $($field: $crate::json_object!(@get fields $field [$($name)?] $($default)?)),* })
            }
        }
    };
    (@write $type:ty { $($field:ident $(as $name:literal)? $(omit $none:ident)?),* }) => {
        impl $crate::Object for $type {
            fn write_fields(&self, out: &mut $crate::Writer) {
                let Self { $($field),* } = self;
                $($crate::json_object!(@put out $field [$($name)?] $($none)?);)*
            }
        }
        impl $crate::ToJson for $type {
            fn write(&self, out: &mut $crate::Writer) {
                out.open('{');
                $crate::Object::write_fields(self, out);
                out.close('}');
            }
        }
    };
    (@open $fields:ident $names:tt) => {};
    (@closed $fields:ident [$($name:expr),*]) => { $fields.only(&[$($name),*])? };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    (@get $fields:ident $field:ident [$($name:literal)?]) => {
        $fields.get($crate::json_object!(@name $field $($name)?))?
    };
    (@get $fields:ident $field:ident [$($name:literal)?] $default:expr) => {
        $fields.get_or($crate::json_object!(@name $field $($name)?), $default)?
    };
    (@put $out:ident $field:ident [$($name:literal)?]) => {
        $out.field($crate::json_object!(@name $field $($name)?), $field)
    };
    (@put $out:ident $field:ident [$($name:literal)?] none) => {
        if let Some(value) = $field {
            $out.field($crate::json_object!(@name $field $($name)?), value);
        }
    };
}

/// An enumeration without contents as a text.
#[macro_export]
macro_rules! json_names {
    ($type:ident { $($variant:ident = $name:literal),* $(,)? }) => {
        $crate::json_serde! { $type }
        impl $crate::FromJson for $type {
            fn from_json(at: $crate::At<'_>) -> Result<Self, $crate::Failure> {
                let index = at.one_of(&[$($name),*])?;
                Ok([$($type::$variant),*][index])
            }
        }
        impl $crate::ToJson for $type {
            fn write(&self, out: &mut $crate::Writer) {
                let name = match self { $($type::$variant => $name),* };
                $crate::ToJson::write(name, out);
            }
        }
    };
}

/// An enumeration as an object that says in one field which variant it is. Fields are as in [`json_object`], others ignored.
#[macro_export]
macro_rules! json_tagged {
    ($type:ident by $tag:literal {
        $($variant:ident = $name:literal { $($field:ident $(= $default:expr)?),* }),* $(,)?
    }) => {
        $crate::json_serde! { $type }
        impl $crate::FromJson for $type {
            fn from_json(at: $crate::At<'_>) -> Result<Self, $crate::Failure> {
                let fields = at.fields()?;
                let names = [$($name),*];
                match names[fields.tag($tag, &names)?] {
                    $($name => Ok($type::$variant {
                        $($field: $crate::json_object!(@get fields $field [] $($default)?)),*
                    }),)*
                    _ => unreachable!("one of these names was found"),
                }
            }
        }
        impl $crate::ToJson for $type {
            fn write(&self, out: &mut $crate::Writer) {
                out.open('{');
                match self {
                    $($type::$variant { $($field),* } => {
                        out.field($tag, $name);
                        $(out.field(stringify!($field), $field);)*
                    })*
                }
                out.close('}');
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use crate::{Json, JsonError, Number, object_tree, parse, read, to_tree, write};

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Colour {
        Red,
        DarkBlue,
    }

    json_names! { Colour { Red = "red", DarkBlue = "dark_blue" } }

    #[derive(Debug, PartialEq)]
    enum Kind {
        Plain,
        Sized { size: u8 },
        Named { width: f32, weight: u32 },
    }

    json_tagged! {
        Kind by "kind" { Plain = "plain" {}, Sized = "sized" { size }, Named = "named" { width, weight = 7 } }
    }

    #[derive(Debug, PartialEq)]
    struct Thing {
        kinds: Vec<Kind>,
        colour: Option<Colour>,
        width: f32,
        pair: Option<[f64; 2]>,
        inner: Option<Box<Inner>>,
    }

    json_object! { Thing: closed { kinds, colour as "color", width = 0.0, pair omit none, inner } }

    #[derive(Debug, Default, PartialEq)]
    struct Inner {
        steps: (u64, bool),
        name: String,
    }

    json_object! { Inner: settings { steps, name } }

    impl crate::FromJson for Box<Inner> {
        fn from_json(at: crate::At<'_>) -> Result<Self, crate::Failure> {
            Inner::from_json(at).map(Box::new)
        }
    }

    impl crate::ToJson for Box<Inner> {
        fn write(&self, out: &mut crate::Writer) {
            (**self).write(out);
        }
    }

    #[test]
    fn every_form_is_read_and_written() {
        let text = r#"{"kinds":[{"kind":"sized","size":3},{"kind":"named","width":0.5,"weight":7},{"kind":"plain"}],"color":"dark_blue","width":0.0,"pair":[1.0,-2.0],"inner":{"steps":[18446744073709551615,true],"name":"a\"b"}}"#;
        let thing = Thing {
            kinds: vec![Kind::Sized { size: 3 }, Kind::Named { width: 0.5, weight: 7 }, Kind::Plain],
            colour: Some(Colour::DarkBlue),
            width: 0.0,
            pair: Some([1.0, -2.0]),
            inner: Some(Box::new(Inner { steps: (u64::MAX, true), name: "a\"b".into() })),
        };
        assert_eq!(write(&thing), text);
        assert_eq!(write(&to_tree(&thing)), text);
        assert_eq!(serde_json::to_string(&thing).unwrap(), text);
        assert_eq!(serde_json::from_str::<Thing>(text).unwrap(), thing);
        assert_eq!(read::<Thing>(text), Ok(thing));
        let least =
            Thing { kinds: vec![], colour: None, width: 0.0, pair: None, inner: Some(Box::default()) };
        assert_eq!(read::<Thing>(r#"{"kinds":[],"inner":{}}"#).as_ref(), Ok(&least));
        let written = r#"{"kinds":[],"color":null,"width":0.0,"inner":{"steps":[0,false],"name":""}}"#;
        assert_eq!(write(&least), written);
        assert_eq!(read::<Colour>("\"red\""), Ok(Colour::Red));
    }

    #[test]
    fn an_error_names_its_place() {
        for (text, path, message) in [
            (
                r#"{"kinds":[],"inner":{"shape":1}}"#,
                "inner.shape",
                "unknown field, expected `steps` or `name`",
            ),
            (r#"{"kinds":[{"kind":"sized","size":300}]}"#, "kinds[0].size", "a whole number from 0 to 255"),
            (r#"{"kinds":[{"kind":"sized","size":2.0}]}"#, "kinds[0].size", "a whole number"),
            (r#"{"kinds":[{"kind":"odd"}]}"#, "kinds[0].kind", "`plain`, `sized` or `named`, got \"odd\""),
            (r#"{"kinds":[{"kind":"sized"}]}"#, "kinds[0]", "missing field `size`"),
            (r#"{"kinds":[{}]}"#, "kinds[0]", "missing field `kind`"),
            (r#"{"kinds":[],"width":1e39}"#, "width", "out of range"),
            (r#"{"kinds":[],"width":"7"}"#, "width", "expected a number, got \"7\""),
            (r#"{"kinds":[],"pair":[1,2,3]}"#, "pair", "expected 2 entries, got 3"),
            (r#"{"kinds":[],"pair":[1,null]}"#, "pair[1]", "expected a number, got null"),
            (r#"{"kinds":[],"inner":{"steps":[1]}}"#, "inner.steps", "expected 2 entries, got 1"),
            (r#"{"kinds":[],"color":{"red":1}}"#, "color", "expected a text, got an object"),
            (r#"{"kinds":[7]}"#, "kinds[0]", "expected an object, got 7"),
            (r#"{"kinds":{}}"#, "kinds", "expected a list"),
            (r#"{"inner":null}"#, "", "missing field `kinds`"),
            (r#"{"kinds":[],"kinds":[]}"#, "", "duplicate field `kinds` at line 1 column 20"),
            (r#"{"kinds":["#, "", "expected a value at line 1 column 11"),
            ("7", "", "expected an object"),
        ] {
            let JsonError { path: at, message: what } = read::<Thing>(text).unwrap_err();
            assert!(at == path && what.contains(message), "{text}: {at:?}, {what}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        assert!(parse(&"[".repeat(100_000)).unwrap_err().message.starts_with("too many lists"));
        assert!(parse(&("[".repeat(128) + &"]".repeat(128))).is_ok());
    }

    #[test]
    fn a_tree_is_that_of_the_text() {
        let numbers = [0.1_f32, -3.0, 1e-45, f32::MAX, f32::NAN, 16_777_217.0];
        assert_eq!(to_tree(&numbers), parse(&write(&numbers)).unwrap());
        assert_eq!(to_tree(&numbers[0]), Json::Number(Number::Real(0.1)));
        let fields = object_tree(|out| {
            out.field("empty", &[0_u8; 0]);
            out.field("pair", &(1_u64, Some("a")));
            out.field("none", &None::<bool>);
        });
        assert_eq!(write(&fields), r#"{"empty":[],"pair":[1,"a"],"none":null}"#);
    }

    #[test]
    fn what_is_no_finite_number_is_null() {
        assert_eq!(write(&[f64::NAN, f64::INFINITY, 1e300]), "[null,null,1e300]");
    }
}
