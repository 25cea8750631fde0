//! A measure, what it should be, and whether it is: what was not measured is never a pass.

use serde_json::{Value, json};

use super::stats::{Summary, rounded};

/// One thing that was asked of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The scenario, or `all`.
    pub scenario: &'static str,
    /// What was measured, with its unit.
    pub measure: &'static str,
    /// How it came out, the median of several; none if it could not be measured.
    pub value: Option<f64>,
    /// Those several.
    pub spread: Option<Summary>,
    /// What it should be, if anything is asked of it.
    pub bound: Option<Bound>,
    /// What was done otherwise than the scenario says, or why there is no value.
    pub note: Option<String>,
}

/// What a value should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As good as asked, or better.
    Pass,
    /// Worse.
    Fail,
    /// There is a bound, but no value.
    NotMeasured,
    /// Nothing is asked of it.
    Free,
}

impl Verdict {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::NotMeasured => "not measured",
            Verdict::Free => "",
        }
    }
}

impl Check {
    /// Whether the value is within its bound.
    pub fn verdict(&self) -> Verdict {
        let within = match (self.value, self.bound) {
            (_, None) => return Verdict::Free,
            // A value that is no number says nothing.
            (None, _) => return Verdict::NotMeasured,
            (Some(value), _) if value.is_nan() => return Verdict::NotMeasured,
            (Some(value), Some(Bound::AtLeast(least))) => value >= least,
            (Some(value), Some(Bound::AtMost(most))) => value <= most,
        };
        match within {
            true => Verdict::Pass,
            false => Verdict::Fail,
        }
    }

    /// As an object; `passed` is null where there is no verdict.
    pub fn json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "measure": self.measure,
            "value": self.value.map(rounded),
            "spread": self.spread.map(|spread| spread.json()),
            "at_least": match self.bound { Some(Bound::AtLeast(x)) => Some(x), _ => None },
            "at_most": match self.bound { Some(Bound::AtMost(x)) => Some(x), _ => None },
            "passed": match self.verdict() {
                Verdict::Pass => Some(true),
                Verdict::Fail => Some(false),
                Verdict::NotMeasured | Verdict::Free => None,
            },
            "note": self.note,
        })
    }

    /// For people: one line.
    pub fn text(&self) -> String {
        let value = self.value.map(|x| rounded((x * 100.0).round() / 100.0));
        let value = value.map_or_else(|| "-".to_owned(), |x| x.to_string());
        let bound = match self.bound {
            Some(Bound::AtLeast(x)) => format!("at least {x}"),
            Some(Bound::AtMost(x)) => format!("at most {x}"),
            None => String::new(),
        };
        let (scenario, measure) = (self.scenario, self.measure);
        let verdict = self.verdict().text();
        let note = self.note.as_ref().map(|note| format!("({note})"));
        let note = note.unwrap_or_default();
        let line =
            format!("{verdict:12}  {scenario:17}  {measure:28} {value:>10}  {bound:14} {note}");
        format!("{}\n", line.trim_end())
    }
}

/// How many passed, were missed, and were not measured, in a line.
pub fn summed_up(checks: &[Check]) -> String {
    let count = |verdict| checks.iter().filter(|c| c.verdict() == verdict).count();
    format!(
        "{} passed, {} missed, {} not measured\n",
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::NotMeasured)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_at_their_ends_and_what_is_not_known_is_no_pass() {
        let (least, most) = (Some(Bound::AtLeast(25.0)), Some(Bound::AtMost(300.0)));
        let mut checks = Vec::new();
        for (value, bound, verdict, passed) in [
            (Some(25.0), least, Verdict::Pass, json!(true)),
            (Some(24.9), least, Verdict::Fail, json!(false)),
            (Some(300.0), most, Verdict::Pass, json!(true)),
            (Some(300.1), most, Verdict::Fail, json!(false)),
            (None, most, Verdict::NotMeasured, Value::Null),
            (Some(f64::NAN), most, Verdict::NotMeasured, Value::Null),
            (Some(1.0), None, Verdict::Free, Value::Null),
        ] {
            let check = Check {
                scenario: "all",
                measure: "x",
                value,
                spread: None,
                bound,
                note: Some("why".into()),
            };
            assert_eq!(check.verdict(), verdict, "{check:?}");
            assert_eq!(check.json()["passed"], passed);
            let text = check.text();
            assert!(text.starts_with(verdict.text()), "{text}");
            assert!(text.contains("(why)") && text.ends_with('\n'), "{text}");
            checks.push(check);
        }
        assert_eq!(summed_up(&checks), "2 passed, 2 missed, 2 not measured\n");
    }
}
