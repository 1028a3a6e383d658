//! Figures of several rounds: the median, and how far the rounds are apart.

use serde::Serialize;

/// A figure of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    /// The middle one; of an even number, the lower of the two in the middle.
    pub(super) median: f64,
    /// The lowest one.
    pub(super) lowest: f64,
    /// The highest one.
    pub(super) highest: f64,
}

impl Spread {
    /// The figure, if there was at least one round.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: *sorted.get(sorted.len().checked_sub(1)? / 2)?,
            lowest: *sorted.first()?,
            highest: *sorted.last()?,
        })
    }
}

/// One line of a table.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: &'static str,
    #[serde(flatten)]
    pub(super) spread: Spread,
}

/// What the rounds measured, in the order in which the first round did.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    series: Vec<(String, &'static str, Vec<f64>)>,
}

impl Rounds {
    /// Adds the value of one round.
    pub(super) fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        let known = self.series.iter_mut().find(|(of, in_unit, _)| of == name && *in_unit == unit);
        match known {
            Some((.., values)) => values.push(value),
            None => self.series.push((name.to_owned(), unit, vec![value])),
        }
    }

    /// All figures.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let figure = |(name, unit, values): &(String, &'static str, Vec<f64>)| {
            Some(Figure { name: name.clone(), unit, spread: Spread::of(values)? })
        };
        self.series.iter().filter_map(figure).collect()
    }

    /// The ratio of two values of the same round, over all rounds.
    pub(super) fn ratio(&self, of: &str, to: &str, unit: &str) -> Option<Figure> {
        let values = |name: &str| {
            let series = self.series.iter().find(|(of, in_unit, _)| of == name && *in_unit == unit);
            series.map(|(.., values)| values)
        };
        let ratios = values(of)?.iter().zip(values(to)?).map(|(of, to)| of / to);
        let spread = Spread::of(&ratios.collect::<Vec<_>>())?;
        Some(Figure { name: format!("{of} ÷ {to}, {unit}"), unit: "", spread })
    }
}

/// Prints figures as a table.
pub(super) fn print(title: &str, figures: &[Figure]) {
    println!("== {title}");
    println!("{:<70} {:>11} {:>11} {:>11} ", "", "median", "lowest", "highest");
    for Figure { name, unit, spread: Spread { median, lowest, highest } } in figures {
        let digits = match median.abs() {
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        println!(
            "{name:<70} {median:>11.digits$} {lowest:>11.digits$} {highest:>11.digits$} {unit}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        let median = |values: &[f64]| Spread::of(values).map(|spread| spread.median);
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_ratio_compares_values_of_the_same_round() {
        let mut rounds = Rounds::default();
        for (a, b) in [(1.0, 2.0), (30.0, 10.0), (4.0, 4.0)] {
            rounds.add("a", "rows/s", a);
            rounds.add("b", "rows/s", b);
        }
        let spread = rounds.ratio("a", "b", "rows/s").map(|figure| figure.spread);
        assert_eq!(spread, Some(Spread { median: 1.0, lowest: 0.5, highest: 3.0 }));
        assert!(rounds.ratio("a", "c", "rows/s").is_none());
    }
}
