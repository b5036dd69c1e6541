//! Taking turns: how contenders are compared.
//!
//! A harness that measures one function after the other (criterion, divan) compares the machine of
//! one minute with the machine of another. Here each round runs every contender for a short time,
//! so that what disturbs one disturbs the others too, and what is reported are medians over the
//! rounds.

/// Measures every contender once a round, each round starting with another one, and returns each
/// contender's samples.
pub(crate) fn take_turns<S>(
    rounds: usize,
    contenders: usize,
    mut measure: impl FnMut(usize) -> S,
) -> Vec<Vec<S>> {
    let mut samples: Vec<Vec<S>> = (0..contenders).map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for turn in 0..contenders {
            let contender = (round + turn) % contenders;
            samples[contender].push(measure(contender));
        }
    }
    samples
}

/// The sample in the middle (of an even number, the upper of the two).
pub(crate) fn median(samples: impl IntoIterator<Item = f64>) -> f64 {
    let mut samples: Vec<f64> = samples.into_iter().collect();
    samples.sort_unstable_by(f64::total_cmp);
    samples[samples.len() / 2]
}
