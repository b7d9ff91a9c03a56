//! What the test runners say at their end, added up: cargo test, cargo nextest and node's runner.

/// Numbers of tests.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Totals {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Totals {
    /// Adds another runner's numbers.
    pub fn add(&mut self, other: Totals) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Sums every closing line found in a runner's output. nextest has one for all; what stands before it is what failed tests
    /// printed, and their programs have closing lines, too.
    pub fn parse(output: &str) -> Self {
        if let Some(summary) = output.lines().rev().find_map(nextest_line) {
            return summary;
        }
        let mut totals = Self::default();
        output.lines().for_each(|line| totals.add(closing_line(line)));
        totals
    }
}

/// The numbers on nextest's closing line.
fn nextest_line(line: &str) -> Option<Totals> {
    let line = without_colours(line);
    let line = line.trim();
    (line.starts_with("Summary") && line.contains(" run: ")).then(|| counts(line))
}

fn counts(line: &str) -> Totals {
    let count = |word| count_before(line, word);
    Totals {
        passed: count("passed"),
        failed: count("failed") + count("timed out"),
        skipped: count("ignored") + count("skipped"),
    }
}

/// The numbers on one line; zeros unless it is a closing line of cargo test or of node's runner.
fn closing_line(line: &str) -> Totals {
    let line = without_colours(line);
    let line = line.trim();
    if line.starts_with("test result:") {
        return counts(line);
    }
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["ℹ" | "#", word, number] => node_line(word, number),
        _ => Totals::default(),
    }
}

/// One of node's closing lines, such as `ℹ pass 12`.
fn node_line(word: &str, number: &str) -> Totals {
    let number = number.parse().unwrap_or(0);
    match word {
        "pass" => Totals { passed: number, ..Totals::default() },
        "fail" | "cancelled" => Totals { failed: number, ..Totals::default() },
        "skipped" | "todo" => Totals { skipped: number, ..Totals::default() },
        _ => Totals::default(),
    }
}

/// The number that stands before `word`, as in `3 passed`; 0 when the word is not there.
fn count_before(line: &str, word: &str) -> u64 {
    let before = line.match_indices(word).map(|(at, _)| line[..at].trim_end());
    before.filter_map(|text| text.rsplit(' ').next()?.parse().ok()).next().unwrap_or(0)
}

/// The line without terminal colour sequences (ESC [ ... letter).
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((text, sequence)) = rest.split_once("\u{1b}[") {
        plain.push_str(text);
        rest = sequence.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        rest = rest.get(1..).unwrap_or("");
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(passed: u64, failed: u64, skipped: u64) -> Totals {
        Totals { passed, failed, skipped }
    }

    #[test]
    fn cargo_test_lines_are_summed() {
        let output = "running 3 tests\ntest a ... ok\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s\n\
            test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(Totals::parse(output), totals(5, 4, 1));
    }

    #[test]
    fn nextest_summaries_are_read_with_and_without_colours() {
        let plain =
            "     Summary [   0.014s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 3 skipped\n";
        assert_eq!(Totals::parse(plain), totals(9, 3, 3));
        let coloured = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.014s] \u{1b}[1m2\u{1b}[0m tests run: \
            \u{1b}[1m2\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m \u{1b}[33;1mskipped\u{1b}[0m";
        assert_eq!(Totals::parse(coloured), totals(2, 0, 0));
    }

    #[test]
    fn a_test_that_fails_under_nextest_is_counted_once() {
        let output = "        FAIL [   0.004s] oto-env rng::a\n  stdout ---\n\n    running 1 test\n    test rng::a ... FAILED\n\n\
            \x20   test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s\n\
            ------------\n     Summary [   0.014s] 2 tests run: 1 passed, 1 failed, 0 skipped\n\
            \x20       FAIL [   0.004s] oto-env rng::a\nerror: test run failed\n";
        assert_eq!(Totals::parse(output), totals(1, 1, 0));
    }

    #[test]
    fn node_totals_are_read_in_both_reporters() {
        assert_eq!(
            Totals::parse("ℹ tests 9\nℹ pass 7\nℹ fail 1\nℹ cancelled 0\nℹ skipped 1\n"),
            totals(7, 1, 1)
        );
        assert_eq!(
            Totals::parse("# tests 3\n# pass 2\n# fail 0\n# cancelled 1\n# todo 0\n"),
            totals(2, 1, 0)
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(
            Totals::parse("test passed ... ok\n5 passed\nSummary of 3 passed\n# Heading here now\n"),
            totals(0, 0, 0)
        );
    }
}
