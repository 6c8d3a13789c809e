//! Which commands lead where, and that each has one place in the document.

use super::command::CommandShape;
use super::faults::Faults;
use super::seen::Seen;
use crate::route::index::{hash_number, hash_text};
use crate::route::{RANGES_MAX, Span};

/// Commands, where they were written, and the route they lead to; none for the login's.
struct Claim {
    path: String,
    span: Span,
    route: Option<u16>,
}

/// The commands of a table in the order in which they were written.
pub struct Claims {
    shape: CommandShape,
    claims: Vec<Claim>,
}

impl Claims {
    pub const fn new(shape: CommandShape) -> Self {
        Self { shape, claims: Vec::new() }
    }

    pub fn add(&mut self, path: String, span: Span, route: Option<u16>) {
        self.claims.push(Claim { path, span, route });
    }

    pub fn into_commands(self) -> Vec<(Span, u16)> {
        let routed = |claim: Claim| claim.route.map(|route| (claim.span, route));
        self.claims.into_iter().filter_map(routed).collect()
    }

    /// Every command has one place. What stands later is at fault.
    pub fn refuse_overlaps(&self, faults: &mut Faults) {
        let mut singles = Seen::with_room_for(self.claims.len());
        let mut ranges: Vec<&Claim> = Vec::new();
        for (number, claim) in self.claims.iter().enumerate() {
            let Some(hash) = claim.span.hash() else {
                let earlier = self.claims.iter().take(number);
                for other in earlier.filter(|other| other.span.overlaps(&claim.span)) {
                    self.taken(claim, other, faults);
                }
                ranges.push(claim);
                continue;
            };
            let same =
                |other: usize| self.claims.get(other).is_some_and(|other| other.span == claim.span);
            let seen = singles.insert(hash, number, &same);
            if let Some(other) = seen.and_then(|other| self.claims.get(other)) {
                self.taken(claim, other, faults);
            }
            for range in ranges.iter().filter(|range| range.span.overlaps(&claim.span)) {
                self.taken(claim, range, faults);
            }
        }
        if ranges.len() > RANGES_MAX {
            let count = ranges.len();
            faults.add("commands", &format_args!("{count} ranges, expected at most {RANGES_MAX}"));
        }
    }

    fn taken(&self, claim: &Claim, other: &Claim, faults: &mut Faults) {
        let (there, here) = (&other.path, claim.span.describe(self.shape));
        if claim.span == other.span {
            faults.add(&claim.path, &format_args!("{here} is taken by {there} already, keep one"));
        } else {
            let other = other.span.describe(self.shape);
            faults.add(&claim.path, &format_args!("{here} overlaps with {other} of {there}"));
        }
    }
}

impl Span {
    /// For a single command.
    fn hash(&self) -> Option<u64> {
        match self {
            Self::Numbers(first, last) if first == last => Some(hash_number(*first)),
            Self::Numbers(..) => None,
            Self::Text(text) => Some(hash_text(text)),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Numbers(a, b), Self::Numbers(c, d)) => a <= d && c <= b,
            (Self::Text(text), Self::Text(other)) => text == other,
            _ => false,
        }
    }

    fn describe(&self, shape: CommandShape) -> String {
        match self {
            Self::Numbers(first, last) if first == last => {
                format!("the command {}", shape.number(*first))
            }
            Self::Numbers(first, last) => {
                format!("the range {} to {}", shape.number(*first), shape.number(*last))
            }
            Self::Text(text) => format!("the command \"{}\"", text.escape_ascii()),
        }
    }
}
