//! Whether an expression of `PromQL` fits the metrics that the services expose.
//!
//! Prometheus answers a wrong name or a wrong label with an empty result, not with an error: an
//! alert would never fire, and a panel would stay empty. So each selector must name a metric that
//! exists, with labels that it has, and each aggregation must group by labels that are left.
//!
//! What this does not know (`on`, `ignoring`, `label_replace`, …) is a mistake as well.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::token::T_LOR;
use promql_parser::parser::{AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, parse};
use serde_json::{Map, Value};

/// The values of each label of each metric.
#[derive(Debug, Default)]
pub(super) struct Exposed(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

/// The labels of a vector; `None` for a number or a text.
type Labels = Option<BTreeSet<String>>;

impl Exposed {
    /// Adds a series, as Prometheus' API shows it.
    pub(super) fn add(&mut self, series: &Map<String, Value>) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let metric = self.0.entry(text(&series["__name__"])).or_default();
        for (label, value) in series.iter().filter(|(label, _)| *label != "__name__") {
            metric.entry(label.clone()).or_default().insert(text(value));
        }
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What is wrong with an expression, if anything is.
    pub(super) fn check(&self, expression: &str) -> Result<(), String> {
        // Grafana replaces it by a duration.
        let expression = expression.replace("$__rate_interval", "1m");
        self.labels(&parse(&expression)?).map(drop)
    }

    fn labels(&self, expression: &Expr) -> Result<Labels, String> {
        match expression {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(None),
            Expr::Paren(inner) => self.labels(&inner.expr),
            Expr::Unary(inner) => self.labels(&inner.expr),
            Expr::VectorSelector(vector) => {
                self.selected(vector.name.as_deref(), &vector.matchers).map(Some)
            }
            Expr::MatrixSelector(matrix) => {
                self.selected(matrix.vs.name.as_deref(), &matrix.vs.matchers).map(Some)
            }
            Expr::Call(call) => self.called(call),
            Expr::Aggregate(aggregate) => self.aggregated(aggregate).map(Some),
            Expr::Binary(binary) => self.combined(binary),
            Expr::Subquery(_) | Expr::Extension(_) => Err(unknown(expression)),
        }
    }

    fn selected(
        &self,
        name: Option<&str>,
        matchers: &Matchers,
    ) -> Result<BTreeSet<String>, String> {
        let name = name.ok_or("a selector without a name")?;
        let metric = self.0.get(name).ok_or_else(|| format!("no metric {name}"))?;
        if !matchers.or_matchers.is_empty() {
            return Err(format!("{name}: alternatives of labels cannot be checked"));
        }
        for matcher in &matchers.matchers {
            let label = &matcher.name;
            let values = metric.get(label).ok_or_else(|| format!("{name} has no label {label}"))?;
            let is_list = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '|');
            let wanted: Vec<&str> = match matcher.op {
                MatchOp::Equal => vec![&matcher.value],
                MatchOp::Re(_) if is_list(&matcher.value) => matcher.value.split('|').collect(),
                _ => Vec::new(),
            };
            for value in wanted {
                if !values.contains(value) {
                    return Err(format!("{name} has no {label}={value:?}, only {values:?}"));
                }
            }
        }
        Ok(metric.keys().cloned().collect())
    }

    fn called(&self, call: &Call) -> Result<Labels, String> {
        let mut arguments = call
            .args
            .args
            .iter()
            .map(|argument| self.labels(argument))
            .collect::<Result<Vec<_>, _>>()?;
        match call.func.name {
            "time" => Ok(None),
            "vector" | "absent_over_time" => Ok(Some(BTreeSet::new())),
            "rate" | "increase" | "delta" | "max_over_time" => {
                Ok(arguments.pop().ok_or_else(|| unknown(&Expr::Call(call.clone())))?)
            }
            "histogram_quantile" => {
                let mut labels = arguments.pop().flatten().unwrap_or_default();
                if !labels.remove("le") {
                    return Err("histogram_quantile needs the label le".to_owned());
                }
                Ok(Some(labels))
            }
            _ => Err(unknown(&Expr::Call(call.clone()))),
        }
    }

    fn aggregated(&self, aggregate: &AggregateExpr) -> Result<BTreeSet<String>, String> {
        let inner = self.labels(&aggregate.expr)?.ok_or("an aggregation of a number")?;
        match &aggregate.modifier {
            None => Ok(BTreeSet::new()),
            Some(LabelModifier::Include(by)) => {
                let by: BTreeSet<String> = by.labels.iter().cloned().collect();
                match by.difference(&inner).next() {
                    Some(missing) => Err(format!("no label {missing} to group by in {inner:?}")),
                    None => Ok(by),
                }
            }
            Some(LabelModifier::Exclude(_)) => Err(unknown(&Expr::Aggregate(aggregate.clone()))),
        }
    }

    fn combined(&self, binary: &BinaryExpr) -> Result<Labels, String> {
        let (left, right) = (self.labels(&binary.lhs)?, self.labels(&binary.rhs)?);
        if binary.modifier.as_ref().is_some_and(|modifier| modifier.matching.is_some()) {
            return Err(unknown(&Expr::Binary(binary.clone())));
        }
        let (Some(left), Some(right)) = (left.clone(), right.clone()) else {
            return Ok(left.or(right));
        };
        if binary.op.id() == T_LOR {
            return Ok(Some(left.union(&right).cloned().collect()));
        }
        // Only series with the same labels on both sides match.
        if left == right {
            Ok(Some(left))
        } else {
            Err(format!("{left:?} and {right:?} do not match"))
        }
    }
}

fn unknown(expression: &Expr) -> String {
    format!("{expression} cannot be checked")
}

fn example() -> Exposed {
    let mut exposed = Exposed::default();
    for (name, labels) in [
        ("requests_total", &[("instance", "a"), ("route", "/"), ("status", "200")][..]),
        ("refusals_total", &[("instance", "a"), ("reason", "unknown")]),
        ("duration_bucket", &[("instance", "a"), ("le", "+Inf")]),
        ("age", &[("instance", "a")]),
        ("live", &[("instance", "a")]),
    ] {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).into()));
        let name = ("__name__".to_owned(), name.into());
        exposed.add(&labels.chain([name]).collect());
    }
    exposed
}

#[test]
fn expressions_that_fit_the_metrics_pass() {
    for expression in [
        "age > 10 and live == 1",
        "(sum(age) or vector(0)) < 1",
        "time() - max(age)",
        "max(max_over_time(age[4d])) > 3 or (4 * absent_over_time(age[4d]) and count(live offset 4d))",
        "sum by (instance) (rate(requests_total{status=~\"5..\"}[$__rate_interval])) / sum by (instance) (rate(requests_total[5m])) > 0.05",
        "histogram_quantile(0.99, sum by (instance, le) (rate(duration_bucket[5m])))",
        "requests_total{instance=\"a\", status!=\"503\"}",
    ] {
        assert_eq!(example().check(expression), Ok(()), "{expression}");
    }
}

/// Prometheus accepts nearly all of them.
#[test]
fn planted_errors_are_found() {
    for (expression, mistake) in [
        ("agee > 10", "no metric agee"),
        ("sum(rate(request_total[5m]))", "no metric request_total"),
        ("age > 10 and alive == 1", "no metric alive"),
        ("vector(0) or sum(agee)", "no metric agee"),
        ("absent_over_time(agee[4d])", "no metric agee"),
        ("requests_total{code=\"200\"}", "requests_total has no label code"),
        ("rate(requests_total{code=~\"5..\"}[5m])", "requests_total has no label code"),
        ("requests_total{status=\"2OO\"}", "requests_total has no status=\"2OO\""),
        ("requests_total{route=~\"other|another\"}", "requests_total has no route=\"other\""),
        ("sum by (reasons) (refusals_total)", "no label reasons to group by"),
        ("sum by (route) (sum by (status) (requests_total))", "no label route to group by"),
        (
            "histogram_quantile(0.9, sum by (instance) (rate(duration_bucket[5m])))",
            "needs the label le",
        ),
        ("requests_total / age", "do not match"),
        ("sum by (instance) (requests_total) / sum(requests_total)", "do not match"),
        ("sum(age", "unclosed left parenthesis"),
        ("age / on (instance) live", "cannot be checked"),
        ("sum without (instance) (age)", "cannot be checked"),
        ("label_replace(age, \"a\", \"\", \"b\", \"\")", "cannot be checked"),
    ] {
        let found = example().check(expression).unwrap_err();
        assert!(found.contains(mistake), "{expression}: {found}");
    }
}
