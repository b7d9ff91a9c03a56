//! What Python objects in a pickle say: NumPy's numbers and arrays, and the spaces of Gym and Gymnasium.

use crate::pickle::{Id, Node, Pickle};
use oto_proto::{MAX_WIDTH, Space, check_space};

/// The deepest nesting of spaces.
const MAX_DEPTH: usize = 8;

/// A space of Gymnasium's, as far as a policy's numbers depend on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Recorded {
    Discrete {
        n: u32,
        start: i64,
    },
    /// `image`: bytes with three dimensions, which Stable-Baselines3 divides by 255.
    Box {
        low: Vec<f32>,
        high: Vec<f32>,
        image: bool,
    },
    /// The number of choices of each part.
    MultiDiscrete(Vec<usize>),
    MultiBinary(usize),
    /// Of a `Dict` or a `Tuple`, as `gymnasium.spaces.flatten` orders them.
    Parts(Vec<Recorded>),
}

impl Recorded {
    /// What the class is called.
    pub fn name(&self) -> &'static str {
        match self {
            Recorded::Discrete { .. } => "Discrete",
            Recorded::Box { .. } => "Box",
            Recorded::MultiDiscrete(_) => "MultiDiscrete",
            Recorded::MultiBinary(_) => "MultiBinary",
            Recorded::Parts(_) => "Dict",
        }
    }

    /// Whether Stable-Baselines3 divides a part of it by 255.
    pub fn has_image(&self) -> bool {
        match self {
            Recorded::Box { image, .. } => *image,
            Recorded::Parts(parts) => parts.iter().any(Recorded::has_image),
            _ => false,
        }
    }

    /// As a space of numbers: what is neither a box nor discrete is flattened as `gymnasium.spaces.flatten` does it, and as the
    /// networks of Stable-Baselines3 take it. None if it is none that a policy can have here.
    pub fn space(&self) -> Option<Space> {
        let space = match self {
            Recorded::Discrete { n, start: 0 } => Space::Discrete { n: *n },
            Recorded::Discrete { .. } => return None,
            other => {
                let (mut low, mut high) = (Vec::new(), Vec::new());
                other.flatten(&mut low, &mut high)?;
                Space::Box { low, high }
            }
        };
        check_space(&space).ok().map(|()| space)
    }

    fn flatten(&self, low: &mut Vec<f32>, high: &mut Vec<f32>) -> Option<()> {
        let hot = match self {
            Recorded::Box { low: lows, high: highs, .. } => {
                low.extend(lows);
                high.extend(highs);
                0
            }
            Recorded::Discrete { n, .. } => *n as usize,
            Recorded::MultiBinary(n) => *n,
            Recorded::MultiDiscrete(parts) => parts.iter().try_fold(0usize, |sum, n| sum.checked_add(*n))?,
            Recorded::Parts(parts) => {
                parts.iter().try_for_each(|part| part.flatten(low, high))?;
                0
            }
        };
        if low.len().checked_add(hot)? > MAX_WIDTH {
            return None;
        }
        low.resize(low.len() + hot, 0.0);
        high.resize(high.len() + hot, 1.0);
        Some(())
    }
}

/// The space that a pickled object is, if it is one that is known and readable.
pub(crate) fn space(pickle: &Pickle, object: Id) -> Option<Recorded> {
    space_within(pickle, object, MAX_DEPTH)
}

fn space_within(pickle: &Pickle, object: Id, depth: usize) -> Option<Recorded> {
    let (module, class) = pickle.class(object)?.split_once(' ')?;
    if !module.starts_with("gym.spaces") && !module.starts_with("gymnasium.spaces") {
        return None;
    }
    let get = |name: &str| pickle.attribute(object, name);
    let within = |part: Id| space_within(pickle, part, depth.checked_sub(1)?);
    let whole = |id: Id| numbers(pickle, id)?.iter().map(|n| count(*n)).collect::<Option<Vec<_>>>();
    Some(match class {
        "Discrete" => {
            let n = u32::try_from(count(number(pickle, get("n")?)?)?).ok()?;
            let start = get("start").map_or(Some(0.0), |id| number(pickle, id))?;
            Recorded::Discrete { n, start: start as i64 }
        }
        "Box" => {
            let shape = pickle.sizes(get("_shape").or_else(|| get("shape"))?)?;
            let size = shape.iter().try_fold(1usize, |size, n| size.checked_mul(*n))?;
            let bounds = |name: &str| {
                let values = numbers(pickle, get(name)?)?;
                (values.len() == size).then(|| values.iter().map(|x| *x as f32).collect())
            };
            let bytes = get("dtype").and_then(|id| dtype(pickle, id)).is_some_and(|(kind, _)| kind == "u1");
            Recorded::Box { low: bounds("low")?, high: bounds("high")?, image: bytes && shape.len() == 3 }
        }
        "MultiDiscrete" => Recorded::MultiDiscrete(whole(get("nvec")?)?),
        "MultiBinary" => {
            let n = get("n")?;
            let sizes = pickle.sizes(n).or_else(|| whole(n))?;
            Recorded::MultiBinary(sizes.iter().try_fold(1usize, |size, n| size.checked_mul(*n))?)
        }
        "Dict" => {
            let entries = pickle.entries(get("spaces")?)?;
            Recorded::Parts(entries.map(|(_, part)| within(part)).collect::<Option<_>>()?)
        }
        "Tuple" => {
            let parts = pickle.row(get("spaces")?)?;
            Recorded::Parts(parts.iter().map(|part| within(*part)).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn count(number: f64) -> Option<usize> {
    ((0.0..=MAX_WIDTH as f64 * 16.0).contains(&number) && number.fract() == 0.0).then_some(number as usize)
}

/// A number of Python's or NumPy's.
pub(crate) fn number(pickle: &Pickle, id: Id) -> Option<f64> {
    match pickle.node(id) {
        Node::Int(int) => Some(*int as f64),
        Node::Float(float) => Some(*float),
        Node::Bool(bool) => Some(f64::from(u8::from(*bool))),
        _ => numbers(pickle, id).filter(|numbers| numbers.len() == 1).map(|numbers| numbers[0]),
    }
}

/// The numbers of a NumPy array or scalar, row by row.
pub(crate) fn numbers(pickle: &Pickle, id: Id) -> Option<Vec<f64>> {
    if let Node::Int(_) | Node::Float(_) | Node::Bool(_) = pickle.node(id) {
        return number(pickle, id).map(|number| vec![number]);
    }
    let (function, arguments) = pickle.call(id)?;
    let (module, function) = function.split_once(' ')?;
    if !matches!(module.split('.').next(), Some("numpy")) {
        return None;
    }
    let (bytes, of_type, shape, by_columns) = match (function, arguments) {
        ("scalar", [of_type, bytes, ..]) => (*bytes, *of_type, None, false),
        ("_frombuffer", [bytes, of_type, shape, order]) => {
            (*bytes, *of_type, Some(*shape), pickle.text(*order) == Some("F"))
        }
        ("_reconstruct", _) => {
            let &[_, shape, of_type, by_columns, bytes] = pickle.row(pickle.state(id)?)? else { return None };
            (bytes, of_type, Some(shape), matches!(pickle.node(by_columns), Node::Bool(true)))
        }
        _ => return None,
    };
    let bytes = bytes_of(pickle, bytes)?;
    let (kind, big) = dtype(pickle, of_type)?;
    let numbers = decode(&bytes, kind, big)?;
    let shape = shape.map_or(Some(vec![]), |shape| pickle.sizes(shape))?;
    let size = shape.iter().try_fold(1usize, |size, n| size.checked_mul(*n))?;
    let is_row = shape.iter().filter(|n| **n > 1).count() < 2;
    (numbers.len() == size && (is_row || !by_columns)).then_some(numbers)
}

/// Bytes, also those that an older protocol of pickles writes as text.
fn bytes_of(pickle: &Pickle, id: Id) -> Option<Vec<u8>> {
    match pickle.node(id) {
        Node::Bytes(bytes) => return Some(bytes.to_vec()),
        Node::Text(text) => return latin(text),
        _ => {}
    }
    match pickle.call(id)? {
        ("_codecs encode", [text, ..]) => latin(pickle.text(*text)?),
        (
            "builtins bytearray" | "builtins bytes" | "__builtin__ bytes" | "__builtin__ bytearray",
            [bytes, ..],
        ) => match pickle.node(*bytes) {
            Node::Bytes(bytes) => Some(bytes.to_vec()),
            Node::Text(text) => latin(text),
            _ => None,
        },
        _ => None,
    }
}

fn latin(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// The kind of numbers of a `numpy.dtype`, and whether their first byte is the largest.
fn dtype<'p>(pickle: &'p Pickle, id: Id) -> Option<(&'p str, bool)> {
    if let Some(name) = pickle.global(id) {
        return match name {
            "numpy float32" => Some(("f4", false)),
            "numpy float64" => Some(("f8", false)),
            "numpy int64" => Some(("i8", false)),
            "numpy uint8" => Some(("u1", false)),
            _ => None,
        };
    }
    let ("numpy dtype", [kind, ..]) = pickle.call(id)? else { return None };
    let order = pickle.state(id).and_then(|state| pickle.text(*pickle.row(state)?.get(1)?));
    Some((pickle.text(*kind)?, order == Some(">")))
}

fn decode(bytes: &[u8], kind: &str, big: bool) -> Option<Vec<f64>> {
    fn all<const N: usize>(bytes: &[u8], big: bool, number: fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        let (chunks, rest) = bytes.as_chunks::<N>();
        let read = |chunk: &[u8; N]| {
            let mut chunk = *chunk;
            if big {
                chunk.reverse();
            }
            number(chunk)
        };
        rest.is_empty().then(|| chunks.iter().map(read).collect())
    }
    match kind {
        "f4" => all::<4>(bytes, big, |b| f32::from_le_bytes(b).into()),
        "f8" => all::<8>(bytes, big, f64::from_le_bytes),
        "i8" => all::<8>(bytes, big, |b| i64::from_le_bytes(b) as f64),
        "u8" => all::<8>(bytes, big, |b| u64::from_le_bytes(b) as f64),
        "i4" => all::<4>(bytes, big, |b| i32::from_le_bytes(b).into()),
        "u4" => all::<4>(bytes, big, |b| u32::from_le_bytes(b).into()),
        "i2" => all::<2>(bytes, big, |b| i16::from_le_bytes(b).into()),
        "u2" => all::<2>(bytes, big, |b| u16::from_le_bytes(b).into()),
        "i1" => all::<1>(bytes, big, |[b]| (b as i8).into()),
        "u1" | "b1" => all::<1>(bytes, big, |[b]| b.into()),
        _ => None,
    }
}
