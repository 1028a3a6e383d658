//! Random variations of inputs, for tests without a fuzzer.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// The longest variation, in bytes.
const LONGEST: usize = 4_096;

/// Generates variations of inputs.
#[derive(Debug)]
pub struct Variations {
    random: StdRng,
}

impl Variations {
    /// The same seed generates the same variations.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    /// Picks an input, and changes it one to six times: inserts, replaces or flips a byte, removes
    /// a piece, or inserts a piece of itself or of another input.
    pub fn next_of(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.any_of(corpus).to_vec();
        for _ in 0..self.random.random_range(1..=6) {
            let place = self.random.random_range(0..=bytes.len());
            match self.random.random_range(0..6) {
                0 => bytes.insert(place, self.random.next_u32().to_le_bytes()[0]),
                1 if place < bytes.len() => bytes[place] = self.random.next_u32().to_le_bytes()[0],
                2 if place < bytes.len() => bytes[place] ^= 1 << self.random.random_range(0..8),
                3 => {
                    let end = self.random.random_range(place..=bytes.len());
                    bytes.drain(place..end);
                }
                4 => {
                    let piece = self.piece(&bytes.clone());
                    bytes.splice(place..place, piece);
                }
                _ => {
                    let other = self.any_of(corpus).to_vec();
                    let piece = self.piece(&other);
                    bytes.splice(place..place, piece);
                }
            }
            bytes.truncate(LONGEST);
        }
        bytes
    }

    fn any_of<'a>(&mut self, corpus: &'a [Vec<u8>]) -> &'a [u8] {
        match corpus.len() {
            0 => &[],
            length => &corpus[self.random.random_range(0..length)],
        }
    }

    fn piece(&mut self, bytes: &[u8]) -> Vec<u8> {
        let start = self.random.random_range(0..=bytes.len());
        let end = self.random.random_range(start..=bytes.len());
        bytes[start..end].to_vec()
    }
}
