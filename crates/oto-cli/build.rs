//! The program carries the site; a newly built site makes a new program.

fn main() {
    println!("cargo::rerun-if-changed=../../web/demo/dist");
}
