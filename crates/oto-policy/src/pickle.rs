//! Reads pickles: the one inside a file that `torch.save` wrote, and those of Gymnasium's spaces and of `VecNormalize`.
//!
//! A pickle is a program, so nothing is called here: a call is kept as data, and [`crate::pickled`] and this file understand
//! the calls that rebuild tensors, arrays and spaces. Values are nodes in one list and refer to each other by their place in it, so that a pickle which
//! nests references to references takes no more memory than its length. Opcodes: CPython's `Lib/pickletools.py`.

use std::collections::HashMap;

/// One tensor of a state dict: where its numbers lie.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorRef {
    /// The name in the state dict.
    pub name: String,
    /// `FloatStorage` and the like.
    pub storage_type: String,
    /// The name of the storage, a file in the archive.
    pub storage: String,
    /// Its first number in the storage.
    pub offset: usize,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Numbers to skip in the storage for one step along each dimension.
    pub strides: Vec<usize>,
}

/// The longest name of a class, a tensor or a storage, in bytes. A pickle may refer to one text as often as it likes, and each name is
/// a copy.
const MAX_NAME: usize = 1024;
/// The most entries of a state dict, of which each may be the same tensor.
const MAX_TENSORS: usize = 1 << 14;
/// The most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// A place in [`Pickle::nodes`].
pub(crate) type Id = usize;

#[derive(Debug)]
pub(crate) enum Node<'a> {
    /// A value of no kind that is needed here.
    Other,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(&'a [u8]),
    /// A class or function, `module name`.
    Global(String),
    /// A tuple or a list.
    Row(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Call(Id, Id),
    Persistent(Id),
}

/// What a pickle holds.
#[derive(Default)]
pub(crate) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    /// What an object was given after it was made.
    states: HashMap<Id, Id>,
    /// The whole.
    pub top: Id,
}

struct Machine<'a> {
    rest: &'a [u8],
    pickle: Pickle<'a>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

/// Reads a pickle.
pub(crate) fn read(pickle: &[u8]) -> Result<Pickle<'_>, String> {
    let pickled = Pickle::default();
    let mut machine = Machine { rest: pickle, pickle: pickled, stack: vec![], marks: vec![], memo: vec![] };
    machine.pickle.top = machine.run()?;
    Ok(machine.pickle)
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => self.take(1).map(drop)?,
                0x95 => self.take(8).map(drop)?,
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b']' => self.push(Node::Row(vec![])),
                // Sets.
                0x8f => self.push(Node::Other),
                0x90 => self.pop_marked().map(drop)?,
                0x91 => {
                    self.pop_marked()?;
                    self.push(Node::Other);
                }
                b'G' => {
                    let float = self.take(8)?.try_into().map(f64::from_be_bytes).map_err(|_| short())?;
                    self.push(Node::Float(float));
                }
                b'J' => {
                    let int = self.take(4)?.try_into().map(i32::from_le_bytes).map_err(|_| short())?;
                    self.push(Node::Int(int.into()));
                }
                b'K' => {
                    let int = self.byte()?;
                    self.push(Node::Int(int.into()));
                }
                b'M' => {
                    let int = self.take(2)?.try_into().map(u16::from_le_bytes).map_err(|_| short())?;
                    self.push(Node::Int(int.into()));
                }
                0x8a => self.long()?,
                b'X' => {
                    let length = self.u32()?;
                    self.text(length as usize)?;
                }
                0x8c => {
                    let length = self.byte()?;
                    self.text(length.into())?;
                }
                0x8d => {
                    let length = self.u64()?;
                    self.text(length)?;
                }
                b'C' | b'U' => {
                    let length = self.byte()?;
                    self.bytes(length.into())?;
                }
                b'B' | b'T' => {
                    let length = self.u32()?;
                    self.bytes(length as usize)?;
                }
                0x8e | 0x96 => {
                    let length = self.u64()?;
                    self.bytes(length)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Node::Global(format!("{module} {name}")));
                }
                0x93 => self.stack_global()?,
                b'}' => self.push(Node::Dict(vec![])),
                b')' => self.push(Node::Row(vec![])),
                b'(' => self.marks.push(self.stack.len()),
                b't' => {
                    let items = self.pop_marked()?;
                    self.push(Node::Row(items));
                }
                0x85..=0x87 => {
                    let at = self.stack.len().checked_sub(usize::from(opcode) - 0x84).ok_or_else(empty)?;
                    let items = self.stack.split_off(at);
                    self.push(Node::Row(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_marked()?;
                    self.append(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_marked()?;
                    self.insert(&items)?;
                }
                // The attributes of an object.
                b'b' => {
                    let state = self.pop()?;
                    let object = *self.stack.last().ok_or_else(empty)?;
                    self.pickle.states.insert(object, state);
                }
                // A function that is called, and a class of which an object is made.
                b'R' | 0x81 => self.reduce()?,
                0x92 => {
                    self.pop()?;
                    self.reduce()?;
                }
                b'0' => self.pop().map(drop)?,
                b'1' => self.pop_marked().map(drop)?,
                b'2' => {
                    let top = *self.stack.last().ok_or_else(empty)?;
                    self.stack.push(top);
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Node::Persistent(id));
                }
                b'q' => {
                    let slot = self.byte()?;
                    self.remember(slot.into())?;
                }
                b'r' => {
                    let slot = self.u32()?;
                    self.remember(slot as usize)?;
                }
                0x94 => self.remember(self.memo.len())?,
                b'h' => {
                    let slot = self.byte()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = self.u32()?;
                    self.recall(slot as usize)?;
                }
                other => {
                    return Err(format!("the pickle has the opcode {other:#04x}, which is not read here"));
                }
            }
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| short())
    }

    fn u64(&mut self) -> Result<usize, String> {
        let length = self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| short())?;
        usize::try_from(length).map_err(|_| short())
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.rest.iter().position(|b| *b == b'\n').ok_or_else(short)?;
        let line = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Ok(line)
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn bytes(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        self.push(Node::Bytes(bytes));
        Ok(())
    }

    /// A whole number of up to eight bytes; a longer one can be no size.
    fn long(&mut self) -> Result<(), String> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        let node = match bytes {
            [] => Node::Int(0),
            bytes if length <= 8 => {
                let mut wide = [if bytes[length - 1] & 0x80 == 0 { 0 } else { 0xff }; 8];
                wide[..length].copy_from_slice(bytes);
                Node::Int(i64::from_le_bytes(wide))
            }
            _ => Node::Other,
        };
        self.push(node);
        Ok(())
    }

    fn stack_global(&mut self) -> Result<(), String> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Node::Text(module), Node::Text(name)) = (&self.pickle.nodes[module], &self.pickle.nodes[name])
        else {
            return Err("a class is named by two texts".into());
        };
        if module.len() + name.len() > MAX_NAME {
            return Err(format!("a class has a name of {} bytes", module.len() + name.len()));
        }
        let class = format!("{module} {name}");
        self.push(Node::Global(class));
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) {
        self.stack.push(self.pickle.nodes.len());
        self.pickle.nodes.push(node);
    }

    /// The value on top; those below the last mark are out of reach, as in Python.
    fn pop(&mut self) -> Result<Id, String> {
        if self.marks.last().is_some_and(|mark| *mark == self.stack.len()) {
            return Err(empty());
        }
        self.stack.pop().ok_or_else(empty)
    }

    fn pop_marked(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        if mark > self.stack.len() {
            return Err(empty());
        }
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: &[Id]) -> Result<(), String> {
        let list = *self.stack.last().ok_or_else(empty)?;
        if let Node::Row(entries) = &mut self.pickle.nodes[list] {
            entries.extend(items);
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), String> {
        let dict = *self.stack.last().ok_or_else(empty)?;
        // An item of anything else, such as a defaultdict, holds no tensor of ours.
        if let Node::Dict(entries) = &mut self.pickle.nodes[dict] {
            entries.extend(items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value)));
        }
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let node = match &self.pickle.nodes[callable] {
            Node::Global(name) if name == "collections OrderedDict" => Node::Dict(vec![]),
            _ => Node::Call(callable, arguments),
        };
        self.push(node);
        Ok(())
    }

    fn remember(&mut self, slot: usize) -> Result<(), String> {
        let id = *self.stack.last().ok_or_else(empty)?;
        // Python numbers slots one after the other; a slot far beyond would only cost memory.
        if slot > self.pickle.nodes.len() {
            return Err(format!("memo slot {slot} is out of order"));
        }
        if slot >= self.memo.len() {
            self.memo.resize(slot + 1, None);
        }
        self.memo[slot] = Some(id);
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<(), String> {
        let id =
            self.memo.get(slot).copied().flatten().ok_or_else(|| format!("memo slot {slot} is empty"))?;
        self.stack.push(id);
        Ok(())
    }
}

impl<'a> Pickle<'a> {
    pub fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id]
    }

    /// The entries of a dictionary whose keys are texts.
    pub fn entries(&self, id: Id) -> Option<impl Iterator<Item = (&str, Id)>> {
        let Node::Dict(items) = &self.nodes[id] else { return None };
        Some(items.iter().filter_map(|(key, value)| Some((self.text(*key)?, *value))))
    }

    /// The last entry of this name: a dictionary keeps that one.
    pub fn entry(&self, dict: Id, name: &str) -> Option<Id> {
        self.entries(dict)?.filter(|(key, _)| *key == name).last().map(|(_, value)| value)
    }

    /// What an object was given after it was made.
    pub fn state(&self, object: Id) -> Option<Id> {
        self.states.get(&object).copied()
    }

    /// An attribute of an object.
    pub fn attribute(&self, object: Id, name: &str) -> Option<Id> {
        self.entry(self.state(object)?, name)
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match &self.nodes[id] {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn row(&self, id: Id) -> Option<&[Id]> {
        match &self.nodes[id] {
            Node::Row(items) => Some(items),
            _ => None,
        }
    }

    /// `module name` of a class or function.
    pub fn global(&self, id: Id) -> Option<&str> {
        match &self.nodes[id] {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    /// What is called, as `module name`, and its arguments.
    pub fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        let Node::Call(callable, arguments) = self.nodes[id] else { return None };
        Some((self.global(callable)?, self.row(arguments)?))
    }

    /// The class of an object, or the function that made it, as `module name`.
    pub fn class(&self, id: Id) -> Option<&str> {
        let Node::Call(callable, _) = self.nodes[id] else { return None };
        self.global(callable)
    }

    /// Whether a dictionary has a tensor among its values.
    pub fn has_tensors(&self, id: Id) -> bool {
        matches!(&self.nodes[id], Node::Dict(items) if items.iter().any(|(_, value)| self.is_tensor(*value)))
    }

    /// The tensors of a state dict, in its order.
    pub fn tensors(&self, dict: Id) -> Result<Vec<TensorRef>, String> {
        let Node::Dict(items) = &self.nodes[dict] else {
            return Err("expected a dictionary of tensors".into());
        };
        self.few(dict)?;
        let tensors = items.iter().filter_map(|(key, value)| self.tensor(*key, *value).transpose());
        tensors.collect()
    }

    /// A dictionary has no more entries than a state dict may have.
    pub fn few(&self, dict: Id) -> Result<(), String> {
        match &self.nodes[dict] {
            Node::Dict(items) if items.len() > MAX_TENSORS => {
                Err(format!("a state dict has at most {MAX_TENSORS} tensors, this one has {}", items.len()))
            }
            _ => Ok(()),
        }
    }

    fn is_tensor(&self, id: Id) -> bool {
        self.class(id).is_some_and(|class| class.starts_with("torch._utils _rebuild_"))
    }

    /// The tensor that `value` rebuilds, `None` if it rebuilds none.
    fn tensor(&self, key: Id, value: Id) -> Result<Option<TensorRef>, String> {
        if !self.is_tensor(value) {
            return Ok(None);
        }
        let strange = |name: &str| {
            let name: String = name.chars().take(64).collect();
            format!("tensor {name:?} is not as torch writes it")
        };
        let Some(name) = self.text(key) else { return Err("a tensor has no name".into()) };
        // A parameter is a call that wraps a tensor.
        let value = match self.call(value) {
            Some(("torch._utils _rebuild_parameter", [tensor, ..])) => *tensor,
            _ => value,
        };
        let parts = match self.call(value) {
            Some(("torch._utils _rebuild_tensor_v2", parts)) => parts,
            _ => return Err(strange(name)),
        };
        self.rebuild(name, parts).map(Some).ok_or_else(|| strange(name))
    }

    fn rebuild(&self, name: &str, parts: &[Id]) -> Option<TensorRef> {
        let [storage, offset, shape, strides, ..] = parts else { return None };
        let Node::Persistent(id) = self.nodes[*storage] else { return None };
        let [_, class, file, ..] = self.row(id)? else { return None };
        let (class, file) = (self.global(*class)?, self.text(*file)?);
        if [name, class, file].iter().any(|text| text.len() > MAX_NAME) {
            return None;
        }
        Some(TensorRef {
            name: name.to_owned(),
            storage_type: class.strip_prefix("torch ")?.to_owned(),
            storage: file.to_owned(),
            offset: self.size(*offset)?,
            shape: self.sizes(*shape)?,
            strides: self.sizes(*strides)?,
        })
    }

    /// A few whole numbers, none negative.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let items = self.row(id)?;
        let few = items.len() <= MAX_DIMENSIONS;
        few.then(|| items.iter().map(|item| self.size(*item)).collect())?
    }

    pub fn size(&self, id: Id) -> Option<usize> {
        match self.nodes[id] {
            Node::Int(int) => usize::try_from(int).ok(),
            _ => None,
        }
    }
}

fn short() -> String {
    "it ends in the middle".into()
}

fn empty() -> String {
    "a value is missing".into()
}
