//! Stop strings in streamed text.
//!
//! Invariants: text goes out as soon as it cannot be part of a stop string; the match that starts first in the whole
//! text wins, however the text was cut into pieces; the stop string itself never goes out.

/// Text that may go out, and whether a stop string was found after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The text that is now certain.
    pub text: String,
    /// A stop string follows this text: nothing more comes.
    pub stopped: bool,
}

/// Looks for stop strings across pieces of text.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
    matched: Option<usize>,
}

impl StopStrings {
    /// Looks for `stops`; empty strings among them match nothing.
    pub fn new(stops: Vec<String>) -> StopStrings {
        StopStrings {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            held: String::new(),
            stopped: false,
            matched: None,
        }
    }

    /// Takes the next text and returns what is certain; after a match, nothing more.
    pub fn push(&mut self, text: &str) -> Piece {
        if self.stopped {
            return Piece {
                text: String::new(),
                stopped: true,
            };
        }
        self.held.push_str(text);
        let found = self.find().map(|(at, which)| {
            self.matched = Some(which);
            at
        });
        let end = found.unwrap_or(self.held.len());
        // A stop string that began earlier and may still be completed would win over the one found.
        let open = self.held[..end]
            .char_indices()
            .map(|(at, _)| at)
            .find(|&at| self.may_begin(&self.held[at..]));
        match (open, found) {
            (None, Some(at)) => {
                self.held.truncate(at);
                self.stopped = true;
                Piece {
                    text: std::mem::take(&mut self.held),
                    stopped: true,
                }
            }
            (open, _) => {
                let rest = self.held.split_off(open.unwrap_or(end));
                Piece {
                    text: std::mem::replace(&mut self.held, rest),
                    stopped: false,
                }
            }
        }
    }

    /// What was held back; the text is at its end.
    pub fn finish(&mut self) -> Piece {
        if let Some((at, which)) = self.find() {
            self.matched = Some(which);
            self.held.truncate(at);
            self.stopped = true;
        }
        Piece {
            text: std::mem::take(&mut self.held),
            stopped: self.stopped,
        }
    }

    /// The stop string that ended the text, if one did.
    pub fn matched(&self) -> Option<&str> {
        let which = self.matched.filter(|_| self.stopped)?;
        self.stops.get(which).map(String::as_str)
    }

    /// Where the first stop string begins, and which one it is; of two at one place, the
    /// shorter, which is there first however the text is cut.
    fn find(&self) -> Option<(usize, usize)> {
        let stops = self.stops.iter().enumerate();
        stops
            .filter_map(|(which, stop)| Some((self.held.find(stop.as_str())?, which)))
            .min_by_key(|&(at, which)| (at, self.stops[which].len()))
    }

    fn may_begin(&self, text: &str) -> bool {
        self.stops
            .iter()
            .any(|stop| stop.len() > text.len() && stop.starts_with(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut stop = StopStrings::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut out = String::new();
        for piece in pieces {
            let got = stop.push(piece);
            out.push_str(&got.text);
            if got.stopped {
                return (out, true);
            }
        }
        let last = stop.finish();
        (out + &last.text, last.stopped)
    }

    #[test]
    fn a_stop_string_across_pieces_ends_the_text() {
        assert_eq!(
            run(&["<end>"], &["hello <", "en", "d> more"]),
            ("hello ".into(), true)
        );
    }

    #[test]
    fn a_beginning_that_is_not_completed_goes_out() {
        assert_eq!(run(&["<end>"], &["a <en", "x"]), ("a <enx".into(), false));
    }

    #[test]
    fn text_goes_out_as_soon_as_it_is_certain() {
        let mut stop = StopStrings::new(vec!["abc".into()]);
        assert_eq!(stop.push("xxab").text, "xx");
        assert_eq!(stop.push("ab").text, "ab");
        assert_eq!(stop.push("d").text, "abd");
    }

    #[test]
    fn the_match_that_starts_first_wins() {
        assert_eq!(run(&["abcd", "bc"], &["xab", "c", "d"]), ("x".into(), true));
        assert_eq!(
            run(&["abcd", "bc"], &["xab", "c", "e"]),
            ("xa".into(), true)
        );
        assert_eq!(run(&["abcd", "bc"], &["xab", "c"]), ("xa".into(), true));
    }

    #[test]
    fn the_one_that_matched_is_known() {
        let mut stop = StopStrings::new(vec!["b".into(), "".into(), "ab".into(), "abc".into()]);
        assert_eq!(stop.matched(), None);
        stop.push("x a");
        assert_eq!(stop.matched(), None);
        stop.push("bc");
        assert_eq!(stop.matched(), Some("ab"), "abc would have come later");
        let mut stop = StopStrings::new(vec!["ab".into(), "abc".into()]);
        stop.push("xab");
        stop.finish();
        assert_eq!(stop.matched(), Some("ab"));
    }

    #[test]
    fn empty_stop_strings_match_nothing() {
        assert_eq!(
            run(&["", ""], &["any", "thing"]),
            ("anything".into(), false)
        );
    }

    proptest! {
        #[test]
        fn equals_a_search_of_the_whole_text(
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            pieces in prop::collection::vec("[abé]{0,3}", 0..12),
        ) {
            let whole: String = pieces.concat();
            let at = stops.iter().filter(|s| !s.is_empty()).filter_map(|s| whole.find(s.as_str())).min();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (text, stopped) = run(&stops, &pieces);
            prop_assert_eq!(text.as_str(), &whole[..at.unwrap_or(whole.len())]);
            prop_assert_eq!(stopped, at.is_some());
        }
    }
}
