#![no_main]
oto_fuzz_targets::target!(oto_fuzz::kserve);
