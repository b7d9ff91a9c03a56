//! Matrix products alone: oto's beside those of NumPy and PyTorch, one thread each, in turn.

use crate::measure::{self, Failure};
use crate::peer::Peer;
use oto_cpu::{Finish, Scratch, Side, matmul};
use oto_graph::Activation;
use serde_json::{Value, json};
use std::fmt;
use std::process::Command;
use std::time::Instant;

/// What Python runs.
const SCRIPT: &str = include_str!("../peers/products.py");
/// Widths of square products.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 1024];
/// Floating-point operations in a block: less than a turn of another program takes.
const BLOCK: usize = 20_000_000;
/// Blocks of a turn.
const BLOCKS: usize = 10;
/// A peer's numbers agree if they are as close as this, relative where they are large.
const TOLERANCE: f32 = 1e-3;

/// One product, `[m, k]` times `[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Whether the left side is stored transposed.
    pub ta: bool,
    /// Whether the right side is stored transposed.
    pub tb: bool,
    /// Whether a bias and ReLU follow.
    pub layer: bool,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { m, n, k, .. } = self;
        let mark = |transposed| if transposed { "'" } else { "" };
        match self.layer {
            true => write!(f, "layer {k} to {n}, {m} rows"),
            false => write!(f, "A{} B{}, {m} x {k} x {n}", mark(self.ta), mark(self.tb)),
        }
    }
}

/// All products of the table: square ones in the three ways of a layer's update, and a layer.
pub fn all() -> Vec<Product> {
    let square = |(width, (ta, tb))| Product { m: width, n: width, k: width, ta, tb, layer: false };
    let ways = [(false, false), (true, false), (false, true)];
    let squares = WIDTHS.into_iter().flat_map(|width| ways.map(|way| (width, way))).map(square);
    squares.chain([Product { m: 256, n: 256, k: 256, ta: false, tb: true, layer: true }]).collect()
}

/// A product's numbers in this process.
struct Ours {
    product: Product,
    a: Vec<f32>,
    b: Vec<f32>,
    bias: Vec<f32>,
    out: Vec<f32>,
    scratch: Scratch,
}

impl Ours {
    fn new(product: Product) -> Self {
        let numbers = |count: usize, seed: usize| {
            (0..count).map(|i| (((i * 7919 + seed) % 1009) as f64 / 1009.0 - 0.5) as f32).collect()
        };
        let Product { m, n, k, .. } = product;
        let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
        Self { product, a, b, bias, out: vec![0.0; m * n], scratch: Scratch::default() }
    }

    fn run(&mut self) {
        let Product { m, n, k, ta, tb, layer } = self.product;
        let a = Side { values: &self.a, columns: if ta { m } else { k }, turned: ta };
        let b = Side { values: &self.b, columns: if tb { k } else { n }, turned: tb };
        let (bias, activation) = match layer {
            true => (Some(&self.bias[..]), Activation::Relu),
            false => (None, Activation::Identity),
        };
        let finish = Finish { bias, activation, derivative: None };
        matmul(a, b, finish, n, k, &mut self.out, &mut self.scratch);
    }

    /// Seconds of the fastest block's product.
    fn time(&mut self, count: usize) -> f64 {
        let block = |_| {
            let start = Instant::now();
            for _ in 0..count {
                self.run();
                std::hint::black_box(&mut self.out);
            }
            start.elapsed().as_secs_f64() / count as f64
        };
        (0..BLOCKS).map(block).fold(f64::INFINITY, f64::min)
    }
}

/// The processes that compute the same.
pub struct Peers {
    here: Vec<Peer>,
    /// Those that did not start, and why.
    absent: Vec<(String, String)>,
}

impl Peers {
    /// NumPy and PyTorch of the Python at `python`.
    pub fn start(python: &str) -> Self {
        let mut peers = Self { here: Vec::new(), absent: Vec::new() };
        for name in ["numpy", "torch"] {
            let mut command = Command::new(python);
            command.args(["-c", SCRIPT, name]).stderr(std::process::Stdio::null());
            command.envs(["OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"].map(|v| (v, "1")));
            match Peer::ready(name, command) {
                Ok(peer) => peers.here.push(peer),
                Err(error) => peers.absent.push((name.into(), error.to_string())),
            }
        }
        peers
    }
}

/// One product and how fast it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub product: Product,
    /// Floating-point operations a second: oto's, then those of each peer.
    pub rates: Vec<f64>,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Who took part: oto, then the peers with their versions.
    pub names: Vec<String>,
    /// Who did not, and why.
    pub absent: Vec<(String, String)>,
    /// In the order of [`all`].
    pub rows: Vec<Row>,
    /// What one core reaches with multiply-adds on registers.
    pub peak: f64,
}

/// Times `products`, everyone's `rounds` times in turn; the fastest block counts.
///
/// # Errors
/// A peer that fails or computes something else.
pub fn measure(products: &[Product], mut peers: Peers, rounds: u32) -> Result<Table, Failure> {
    let names = peers.here.iter().map(|peer| peer.description.clone());
    let names = std::iter::once("oto".to_string()).chain(names).collect();
    let mut rows = Vec::new();
    for product in products {
        rows.push(row(*product, &mut peers.here, rounds)?);
    }
    let peak = measure::peaks().iter().map(|p| p.per_second).fold(0.0, f64::max);
    Ok(Table { names, absent: peers.absent, rows, peak })
}

fn row(product: Product, peers: &mut [Peer], rounds: u32) -> Result<Row, Failure> {
    let mut ours = Ours::new(product);
    ours.run();
    for peer in peers.iter_mut() {
        agree(&ours, peer)?;
    }
    let operations = 2 * product.m * product.n * product.k;
    let count = (BLOCK / operations).max(1);
    let mut fastest = vec![f64::INFINITY; 1 + peers.len()];
    for _ in 0..rounds.max(1) {
        fastest[0] = fastest[0].min(ours.time(count));
        for (peer, fastest) in peers.iter_mut().zip(&mut fastest[1..]) {
            let answer = peer.ask(&json!({ "run": count, "blocks": BLOCKS }))?;
            *fastest = fastest.min(answer["seconds"].as_f64().unwrap_or(f64::INFINITY));
        }
    }
    Ok(Row { product, rates: fastest.iter().map(|seconds| operations as f64 / seconds).collect() })
}

/// Gives a peer the product; an error where some of its numbers differ.
fn agree(ours: &Ours, peer: &mut Peer) -> Result<(), Failure> {
    let Product { m, n, k, ta, tb, layer } = ours.product;
    let every = 97;
    let product = json!({ "m": m, "n": n, "k": k, "ta": ta, "tb": tb, "layer": layer });
    let answer = peer.ask(&json!({ "product": product, "every": every }))?;
    let theirs = answer["some"].as_array().map_or(&[][..], Vec::as_slice);
    let expected = ours.out.iter().step_by(every);
    if theirs.len() != expected.len() {
        let (name, count) = (&peer.description, expected.len());
        return Err(Failure::Peer(format!(
            "{name}: {} numbers of {}, expected {count}",
            theirs.len(),
            ours.product
        )));
    }
    for (i, (got, expected)) in theirs.iter().zip(expected).enumerate() {
        let got = got.as_f64().map_or(f32::NAN, |x| x as f32);
        let near = (got - expected).abs() <= TOLERANCE * (1.0 + expected.abs());
        if !near {
            let (name, what) =
                (peer.description.clone(), format!("number {} of {}", i * every, ours.product));
            return Err(Failure::Differs { name, what, got, expected: *expected });
        }
    }
    Ok(())
}

impl Table {
    /// The table in GFLOP/s.
    pub fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let Product { m, n, k, ta, tb, layer } = row.product;
            let rates = row.rates.iter().map(|rate| rate / 1e9).collect::<Vec<_>>();
            json!({ "m": m, "n": n, "k": k, "ta": ta, "tb": tb, "layer": layer, "gflops": rates })
        };
        let absent = |(name, why): &(String, String)| json!({ "name": name, "reason": why });
        json!({
            "processor": measure::processor(),
            "peak_gflops": self.peak / 1e9,
            "names": self.names,
            "results": self.rows.iter().map(row).collect::<Vec<_>>(),
            "absent": self.absent.iter().map(absent).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "GFLOP/s on one core of {}; its peak is {:.1}", measure::processor(), self.peak / 1e9)?;
        write!(f, "{:<28}", "")?;
        self.names.iter().try_for_each(|name| write!(f, "  {name:>8}"))?;
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:<28}", row.product.to_string())?;
            for (name, rate) in self.names.iter().zip(&row.rates) {
                write!(f, "  {:>width$.1}", rate / 1e9, width = name.len().max(8))?;
            }
            writeln!(f)?;
        }
        self.absent.iter().try_for_each(|(name, why)| writeln!(f, "{name} is left out: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_what_its_definition_says() {
        for (ta, tb) in [(false, false), (true, false), (false, true)] {
            let product = Product { m: 9, n: 7, k: 5, ta, tb, layer: ta };
            let mut ours = Ours::new(product);
            ours.run();
            let Ours { a, b, bias, out, .. } = &ours;
            for (i, got) in out.iter().enumerate() {
                let (row, column) = (i / 7, i % 7);
                let left = |p: usize| f64::from(if ta { a[p * 9 + row] } else { a[row * 5 + p] });
                let right = |p: usize| f64::from(if tb { b[column * 5 + p] } else { b[p * 7 + column] });
                let sum = (0..5).map(|p| left(p) * right(p)).sum::<f64>();
                let wanted = if ta { (sum + f64::from(bias[column])).max(0.0) } else { sum };
                assert!((f64::from(*got) - wanted).abs() < 1e-6, "{product}: {got} {wanted}");
            }
        }
    }

    #[test]
    fn a_table_says_who_is_absent() {
        let peers = Peers::start("no-such-python");
        assert_eq!(peers.absent.len(), 2);
        let product = Product { m: 8, n: 8, k: 8, ta: false, tb: true, layer: true };
        let table = measure(&[product], peers, 1).unwrap();
        assert!(table.rows[0].rates[0] > 0.0 && table.peak > 0.0);
        let text = table.to_string();
        assert!(text.contains("layer 8 to 8, 8 rows") && text.contains("numpy is left out"), "{text}");
        assert_eq!(table.to_json()["absent"][1]["name"], "torch");
        assert_eq!(all().len(), 16);
    }
}
