//! Reads the pickle inside a file that `torch.save` wrote: as much of the pickle machine as a state dict needs.
//!
//! A pickle is a program, so nothing is called here: a call is kept as data, and only the calls that rebuild a tensor
//! are understood. Values are nodes in one list and refer to each other by their place in it, so that a pickle which
//! nests references to references takes no more memory than its length. Opcodes: CPython's `Lib/pickletools.py`.

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

/// A place in [`Machine::nodes`].
type Id = usize;

#[derive(Debug)]
enum Node {
    /// A value that no tensor needs.
    Other,
    Int(i64),
    Text(String),
    /// A class or function, `module name`.
    Global(String),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Call(Id, Id),
    Persistent(Id),
}

struct Machine<'a> {
    rest: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

/// The tensors of the state dict that `pickle` holds, in its order.
pub(crate) fn read_state_dict(pickle: &[u8]) -> Result<Vec<TensorRef>, String> {
    let mut machine = Machine { rest: pickle, nodes: vec![], stack: vec![], marks: vec![], memo: vec![] };
    let top = machine.run()?;
    let Node::Dict(items) = &machine.nodes[top] else {
        return Err("expected a dictionary of tensors".into());
    };
    if items.len() > MAX_TENSORS {
        return Err(format!("a state dict has at most {MAX_TENSORS} tensors, this one has {}", items.len()));
    }
    let tensors = items.iter().filter_map(|(key, value)| machine.tensor(*key, *value).transpose());
    tensors.collect()
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => self.take(1).map(drop)?,
                0x95 => self.take(8).map(drop)?,
                b'N' | 0x88 | 0x89 | b']' => self.push(Node::Other),
                b'G' => {
                    self.take(8)?;
                    self.push(Node::Other);
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
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Node::Global(format!("{module} {name}")));
                }
                0x93 => self.stack_global()?,
                b'}' => self.push(Node::Dict(vec![])),
                b')' => self.push(Node::Tuple(vec![])),
                b'(' => self.marks.push(self.stack.len()),
                b't' => {
                    let items = self.pop_marked()?;
                    self.push(Node::Tuple(items));
                }
                0x85..=0x87 => {
                    let at = self.stack.len().checked_sub(usize::from(opcode) - 0x84).ok_or_else(empty)?;
                    let items = self.stack.split_off(at);
                    self.push(Node::Tuple(items));
                }
                b'a' => self.pop().map(drop)?,
                b'e' => self.pop_marked().map(drop)?,
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_marked()?;
                    self.insert(&items)?;
                }
                // The attributes of an object, such as a state dict's version numbers: not needed.
                b'b' => self.pop().map(drop)?,
                b'R' => self.reduce()?,
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
                other => return Err(format!("opcode {other:#04x} is none that a state dict needs")),
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
        let (Node::Text(module), Node::Text(name)) = (&self.nodes[module], &self.nodes[name]) else {
            return Err("a class is named by two texts".into());
        };
        if module.len() + name.len() > MAX_NAME {
            return Err(format!("a class has a name of {} bytes", module.len() + name.len()));
        }
        let class = format!("{module} {name}");
        self.push(Node::Global(class));
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
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

    fn insert(&mut self, items: &[Id]) -> Result<(), String> {
        let dict = *self.stack.last().ok_or_else(empty)?;
        // An item of anything else, such as a defaultdict, holds no tensor of ours.
        if let Node::Dict(entries) = &mut self.nodes[dict] {
            entries.extend(items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value)));
        }
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let node = match &self.nodes[callable] {
            Node::Global(name) if name == "collections OrderedDict" => Node::Dict(vec![]),
            _ => Node::Call(callable, arguments),
        };
        self.push(node);
        Ok(())
    }

    fn remember(&mut self, slot: usize) -> Result<(), String> {
        let id = *self.stack.last().ok_or_else(empty)?;
        // Python numbers slots one after the other; a slot far beyond would only cost memory.
        if slot > self.nodes.len() {
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

    /// The tensor that `value` rebuilds, `None` if it rebuilds none.
    fn tensor(&self, key: Id, value: Id) -> Result<Option<TensorRef>, String> {
        // A parameter is a call that wraps a tensor.
        let value = match self.call("torch._utils _rebuild_parameter", value) {
            Some([tensor, ..]) => *tensor,
            _ => value,
        };
        let (Node::Text(name), Some(parts)) =
            (&self.nodes[key], self.call("torch._utils _rebuild_tensor_v2", value))
        else {
            return Ok(None);
        };
        let tensor = self.rebuild(name, parts);
        tensor.map(Some).ok_or_else(|| {
            let name: String = name.chars().take(64).collect();
            format!("tensor {name:?} is not as torch writes it")
        })
    }

    /// The arguments of a call of `function`.
    fn call(&self, function: &str, id: Id) -> Option<&[Id]> {
        let Node::Call(callable, arguments) = self.nodes[id] else { return None };
        match (&self.nodes[callable], &self.nodes[arguments]) {
            (Node::Global(name), Node::Tuple(parts)) if name == function => Some(parts),
            _ => None,
        }
    }

    fn rebuild(&self, name: &str, parts: &[Id]) -> Option<TensorRef> {
        let [storage, offset, shape, strides, ..] = parts else { return None };
        let Node::Persistent(id) = self.nodes[*storage] else { return None };
        let Node::Tuple(id) = &self.nodes[id] else { return None };
        let [_, class, file, ..] = id.as_slice() else { return None };
        let (Node::Global(class), Node::Text(file)) = (&self.nodes[*class], &self.nodes[*file]) else {
            return None;
        };
        if [name, class, file].iter().any(|text| text.len() > MAX_NAME) {
            return None;
        }
        Some(TensorRef {
            name: name.to_owned(),
            storage_type: class.strip_prefix("torch ")?.to_owned(),
            storage: file.clone(),
            offset: self.size(*offset)?,
            shape: self.sizes(*shape)?,
            strides: self.sizes(*strides)?,
        })
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let Node::Tuple(items) = &self.nodes[id] else { return None };
        let few = items.len() <= MAX_DIMENSIONS;
        few.then(|| items.iter().map(|item| self.size(*item)).collect())?
    }

    fn size(&self, id: Id) -> Option<usize> {
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
