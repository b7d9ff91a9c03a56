//! The same program with less to do: constants computed, views of views joined, what is written twice computed once,
//! arithmetic done before a broadcast instead of after it.

use crate::{Binary, Node, NodeId, Op, Program, Unary};

/// Rewrites `program`; inputs, updates and outputs keep their meaning, values agree up to rounding.
pub fn simplify(program: &Program) -> Program {
    let mut new = Rewriter { nodes: Vec::with_capacity(program.nodes.len()) };
    let mut name: Vec<NodeId> = Vec::with_capacity(program.nodes.len());
    for node in &program.nodes {
        name.push(new.put(node.op.clone().renamed(&name), node.shape.clone()));
    }
    let rewritten = Program {
        nodes: new.nodes,
        inputs: program.inputs.clone(),
        updates: program.updates.iter().map(|(input, n)| (*input, name[n.0])).collect(),
        outputs: program.outputs.iter().map(|(s, n)| (s.clone(), name[n.0])).collect(),
    };
    rewritten.without_unused()
}

struct Rewriter {
    nodes: Vec<Node>,
}

impl Rewriter {
    fn shape(&self, n: NodeId) -> &[usize] {
        &self.nodes[n.0].shape
    }

    fn op(&self, n: NodeId) -> &Op {
        &self.nodes[n.0].op
    }

    fn constant(&self, n: NodeId) -> Option<f64> {
        match self.op(n) {
            Op::Constant(v) => Some(*v),
            _ => None,
        }
    }

    /// The operand of a broadcast.
    fn broadcast(&self, n: NodeId) -> Option<NodeId> {
        match self.op(n) {
            Op::Broadcast(x) => Some(*x),
            _ => None,
        }
    }

    /// A node that gives this value: rewritten, one that is there already, or a new one.
    fn put(&mut self, op: Op, shape: Vec<usize>) -> NodeId {
        match op {
            Op::StopGradient(x) => x,
            Op::Reshape(x) => self.reshape(x, shape),
            Op::Broadcast(x) => match (self.constant(x), self.broadcast(x)) {
                (Some(v), _) => self.put(Op::Constant(v), shape),
                (_, Some(inner)) => self.put(Op::Broadcast(inner), shape),
                _ => self.intern(op, shape),
            },
            Op::SumTo(x) => match self.constant(x) {
                Some(v) => {
                    let (from, to) = (count(self.shape(x)), count(&shape));
                    self.put(Op::Constant(v * from as f64 / to as f64), shape)
                }
                None => self.intern(op, shape),
            },
            Op::Affine { x, mul, add } => self.affine(x, mul, add, shape),
            Op::Unary(f, x) => match (self.constant(x), self.broadcast(x)) {
                (Some(v), _) => self.put(Op::Constant(unary(f, v)), shape),
                (_, Some(inner)) => {
                    let inner = self.put(Op::Unary(f, inner), self.shape(inner).to_vec());
                    self.put(Op::Broadcast(inner), shape)
                }
                _ => self.intern(op, shape),
            },
            Op::Binary(f, a, b) => self.binary(f, a, b, shape),
            Op::Select { when, then, otherwise } => match self.constant(when) {
                Some(v) if v > 0.0 => then,
                Some(_) => otherwise,
                None if then == otherwise => then,
                None => self.intern(op, shape),
            },
            _ => self.intern(op, shape),
        }
    }

    fn reshape(&mut self, x: NodeId, shape: Vec<usize>) -> NodeId {
        if self.shape(x) == shape {
            return x;
        }
        match *self.op(x) {
            Op::Reshape(inner) => self.reshape(inner, shape),
            Op::Constant(v) => self.put(Op::Constant(v), shape),
            _ => self.intern(Op::Reshape(x), shape),
        }
    }

    fn affine(&mut self, x: NodeId, mul: f64, add: f64, shape: Vec<usize>) -> NodeId {
        if (mul, add) == (1.0, 0.0) {
            return x;
        }
        match *self.op(x) {
            Op::Constant(v) => self.put(Op::Constant(v * mul + add), shape),
            Op::Affine { x, mul: m, add: a } => self.affine(x, m * mul, a * mul + add, shape),
            Op::Broadcast(inner) => {
                let inner = self.affine(inner, mul, add, self.shape(inner).to_vec());
                self.put(Op::Broadcast(inner), shape)
            }
            _ => self.intern(Op::Affine { x, mul, add }, shape),
        }
    }

    fn binary(&mut self, f: Binary, a: NodeId, b: NodeId, shape: Vec<usize>) -> NodeId {
        match (f, self.constant(a), self.constant(b)) {
            (_, Some(x), Some(y)) => return self.put(Op::Constant(binary(f, x, y)), shape),
            (Binary::Add, Some(c), _) => return self.affine(b, 1.0, c, shape),
            (Binary::Add, _, Some(c)) => return self.affine(a, 1.0, c, shape),
            (Binary::Sub, Some(c), _) => return self.affine(b, -1.0, c, shape),
            (Binary::Sub, _, Some(c)) => return self.affine(a, 1.0, -c, shape),
            (Binary::Mul, Some(c), _) => return self.affine(b, c, 0.0, shape),
            (Binary::Mul, _, Some(c)) => return self.affine(a, c, 0.0, shape),
            (Binary::Div, _, Some(c)) => return self.affine(a, 1.0 / c, 0.0, shape),
            _ => {}
        }
        if let (Some(x), Some(y)) = (self.broadcast(a), self.broadcast(b))
            && self.shape(x) == self.shape(y)
        {
            let inner = self.binary(f, x, y, self.shape(x).to_vec());
            return self.put(Op::Broadcast(inner), shape);
        }
        self.intern(Op::Binary(f, a, b), shape)
    }

    /// The node of this operation and shape. Programs have a few hundred nodes and are rewritten once: a search will do.
    fn intern(&mut self, op: Op, shape: Vec<usize>) -> NodeId {
        let known = self.nodes.iter().position(|n| n.op == op && n.shape == shape);
        NodeId(known.unwrap_or_else(|| {
            self.nodes.push(Node { op, shape });
            self.nodes.len() - 1
        }))
    }
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Square => x * x,
        Unary::Abs => x.abs(),
        Unary::Relu => x.max(0.0),
        Unary::Tanh => x.tanh(),
        Unary::Recip => x.recip(),
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Unary::Step => f64::from(x > 0.0),
    }
}

fn binary(f: Binary, a: f64, b: f64) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trace;

    #[test]
    fn constants_views_and_repeats_go_away() {
        let t = Trace::new();
        let x = t.data("x", &[2, 3]);
        let s = t.data("s", &[]);
        let one = t.constant(1.0, &[2, 3]);
        let a = (x * one + 0.0).reshape(&[6]).reshape(&[2, 3]).stop_gradient() * (s * 2.0 * 3.0);
        let b = x * (s * 6.0);
        let program = simplify(&t.finish(&[], &[("y", a + b)]));
        let text = program.to_string();
        // x, s, 6 s, its broadcast, one product, the sum.
        assert_eq!(program.nodes.len(), 6, "{text}");
        assert!(text.contains("mul: 6.0"), "{text}");
    }

    #[test]
    fn arithmetic_happens_before_a_broadcast() {
        let t = Trace::new();
        let (a, b, x) = (t.data("a", &[]), t.data("b", &[]), t.data("x", &[4]));
        let y = (a.broadcast(&[4]) * b.broadcast(&[4])).exp() - x;
        let program = simplify(&t.finish(&[], &[("y", y)]));
        let broadcasts = program.nodes.iter().filter(|n| matches!(n.op, Op::Broadcast(_))).count();
        assert_eq!(broadcasts, 1, "{program}");
    }
}
