//! What the samples were: addresses turned into names, counted, and written down.

use super::buffer::Buffer;
use pcmap::registry::ModuleRegistry;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

/// Stacks of names, outermost first and separated by semicolons, and how often each was seen.
#[derive(Debug)]
pub(crate) struct Profile {
    stacks: BTreeMap<String, usize>,
    elsewhere: usize,
    lost: usize,
}

impl Profile {
    /// Asks the store what is at the addresses; on an ordinary thread, while the store has the code.
    pub(crate) fn of(samples: &Buffer, registry: &ModuleRegistry) -> Self {
        let mut stacks = BTreeMap::new();
        for sample in samples.samples() {
            let names = sample.iter().enumerate().map(|(i, &pc)| {
                // All but the first are return addresses.
                let at = if i == 0 { pc } else { pc - 1 };
                let frame = registry.lookup_frame_info(at);
                frame.and_then(|frame| frame.function().name).unwrap_or("?")
            });
            let names: Vec<_> = names.collect();
            let stack = names.iter().rev().copied().collect::<Vec<_>>().join(";");
            *stacks.entry(stack).or_default() += 1;
        }
        Self { stacks, elsewhere: samples.elsewhere(), lost: samples.lost() }
    }

    /// One line a stack, with its count: what flame graphs are made of.
    pub(crate) fn folded(&self) -> String {
        self.stacks.iter().map(|(stack, count)| format!("{stack} {count}\n")).collect()
    }

    /// Writes a flame graph, as SVG.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub(crate) fn flame_graph(&self, to: impl Write) -> Result<(), Box<dyn std::error::Error>> {
        let mut options = inferno::flamegraph::Options::default();
        "Guests".clone_into(&mut options.title);
        let folded = self.folded();
        Ok(inferno::flamegraph::from_lines(&mut options, folded.lines(), to)?)
    }

    /// All samples of guests.
    pub(crate) fn samples(&self) -> usize {
        self.stacks.values().sum()
    }

    /// Samples in which the function is on the stack.
    pub(crate) fn samples_in(&self, function: &str) -> usize {
        let within = |stack: &str| stack.split(';').any(|name| name == function);
        self.stacks.iter().filter(|(stack, _)| within(stack)).map(|(_, count)| count).sum()
    }

    /// Samples that there was no room for.
    pub(crate) fn lost(&self) -> usize {
        self.lost
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (samples, elsewhere, lost) = (self.samples(), self.elsewhere, self.lost());
        writeln!(f, "{samples} samples of guests, {elsewhere} elsewhere, {lost} lost")?;
        for (name, share) in super::SHARES {
            let found = self.samples_in(name) as f64 / samples.max(1) as f64;
            writeln!(f, "{name:10} {:5.1} % of {:.0} %", 100.0 * found, 100.0 * share)?;
        }
        Ok(())
    }
}
