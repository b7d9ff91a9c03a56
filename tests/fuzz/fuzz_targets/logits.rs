#![no_main]
oto_fuzz::target!(oto_fuzz::targets::logits);
