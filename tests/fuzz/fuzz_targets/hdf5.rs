#![no_main]
oto_fuzz_targets::target!(oto_fuzz::hdf5);
