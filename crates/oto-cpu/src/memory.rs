//! The plan's slots, and stretches of them.

use oto_graph::plan::Place;

/// All slots' numbers. A kernel takes the slot it writes out of the table and puts it back; the plan never lets a kernel read
/// the slot that it writes.
pub struct Memory {
    pub slots: Vec<Vec<f32>>,
}

/// A stretch of a slot.
#[derive(Clone, Copy)]
pub struct Whole {
    pub slot: usize,
    pub offset: usize,
    pub len: usize,
    /// There is room for one part only, which all parts use in turn.
    pub one_part: bool,
}

impl Whole {
    /// Part `i` of `count` equal ones.
    pub fn part(self, i: usize, count: usize) -> Whole {
        let len = self.len / count;
        let offset = if self.one_part { self.offset } else { self.offset + i * len };
        Whole { offset, len, ..self }
    }
}

/// One number.
#[derive(Clone, Copy)]
pub enum Number {
    Constant(f32),
    At(Place),
}

/// Rows of a value, `width` numbers each; in a tile, a block's rows begin at 0.
#[derive(Clone, Copy)]
pub struct Rows {
    pub slot: usize,
    pub offset: usize,
    pub width: usize,
    pub tile: bool,
}

/// A block of rows, `first..end`.
#[derive(Clone, Copy)]
pub struct Block {
    pub first: usize,
    pub end: usize,
}

impl Rows {
    /// Where a block's rows lie in the slot.
    pub fn range(self, block: Block) -> std::ops::Range<usize> {
        let first = if self.tile { 0 } else { block.first };
        let from = self.offset + first * self.width;
        from..from + (block.end - block.first) * self.width
    }
}

impl Memory {
    pub fn whole(&self, w: Whole) -> &[f32] {
        &self.slots[w.slot][w.offset..w.offset + w.len]
    }

    pub fn rows(&self, rows: Rows, block: Block) -> &[f32] {
        &self.slots[rows.slot][rows.range(block)]
    }

    pub fn number(&self, n: Number) -> f32 {
        match n {
            Number::Constant(v) => v,
            Number::At(p) => self.slots[p.slot][p.offset],
        }
    }

    /// Lets `f` write a stretch while it reads other slots.
    pub fn write<R>(&mut self, out: Whole, f: impl FnOnce(&Memory, &mut [f32]) -> R) -> R {
        let mut taken = std::mem::take(&mut self.slots[out.slot]);
        let result = f(self, &mut taken[out.offset..out.offset + out.len]);
        self.slots[out.slot] = taken;
        result
    }

    /// Lets `f` write a block of rows while it reads other slots.
    pub fn write_rows<R>(&mut self, out: Rows, block: Block, f: impl FnOnce(&Memory, &mut [f32]) -> R) -> R {
        let range = out.range(block);
        self.write(Whole { slot: out.slot, offset: range.start, len: range.len(), one_part: false }, f)
    }
}
