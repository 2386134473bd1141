//! Money as integers: what a call cost, and what one unit of it costs.
//!
//! Decimal text is turned into an integer digit by digit; no amount ever passes through
//! floating-point arithmetic. A total is added up in the fine unit of the rates and rounded
//! once, at its end.

use std::fmt;

/// Decimals of a [`Cost`]: pico-dollars.
const COST_DECIMALS: u32 = 12;
/// Decimals of a [`Rate`]: yocto-dollars.
const RATE_DECIMALS: u32 = 24;
/// Yocto-dollars of a pico-dollar.
const RATE_PER_COST: u128 = 10_u128.pow(RATE_DECIMALS - COST_DECIMALS);
/// Pico-dollars of a dollar.
const DOLLAR: u64 = 10_u64.pow(COST_DECIMALS);

/// An amount of money in pico-dollars (10⁻¹² US dollars), up to about 18 million dollars;
/// larger ones stay there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(pub u64);

impl Cost {
    /// Nothing at all.
    pub const ZERO: Self = Self(0);

    /// The sum, or the largest amount there is.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left after `other`, at least nothing.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// In dollars, for JSON and charts: exact to about 16 digits. Never compute with it.
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / DOLLAR as f64
    }

    /// Reads dollars as people write them: `12.5`, `1e-6`. More than twelve decimals are
    /// rounded half up.
    ///
    /// # Errors
    /// Says what is wrong: not a decimal number, negative, or more than 18 million dollars.
    pub fn parse(dollars: &str) -> Result<Self, String> {
        let pico = scaled(dollars, COST_DECIMALS.into())?;
        let pico = u64::try_from(pico).map_err(|_| too_large(dollars))?;
        Ok(Self(pico))
    }
}

/// Decimal dollars, all digits and no trailing zeros: `0.00000015`.
impl fmt::Display for Cost {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        if out.width().is_none() {
            return self.write(out);
        }
        let mut text = String::new();
        self.write(&mut text)?;
        out.pad(&text)
    }
}

impl Cost {
    fn write(self, out: &mut impl fmt::Write) -> fmt::Result {
        let (dollars, mut decimals) = (self.0 / DOLLAR, self.0 % DOLLAR);
        if decimals == 0 {
            return write!(out, "{dollars}");
        }
        let mut places = COST_DECIMALS as usize;
        while decimals.is_multiple_of(10) {
            decimals /= 10;
            places -= 1;
        }
        write!(out, "{dollars}.{decimals:0places$}")
    }
}

/// The price of one unit - a token, a call, a request - in yocto-dollars (10⁻²⁴ US dollars).
///
/// A dollar per million tokens is 10¹⁸ of them, so a rate written with up to 18 decimals per
/// million tokens, or 24 per token, is kept exactly. Finer ones are rounded half up, which
/// takes 10¹² tokens to make half a pico-dollar.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u128);

impl Rate {
    /// Free of charge.
    pub const FREE: Self = Self(0);

    /// Reads the dollars that one unit costs.
    ///
    /// # Errors
    /// Says what is wrong: not a decimal number, negative, or too large.
    pub fn each(dollars: &str) -> Result<Self, String> {
        Self::per_power_of_ten(dollars, 0)
    }

    /// Reads the dollars that `10^power` units cost.
    ///
    /// # Errors
    /// As [`Rate::each`].
    pub fn per_power_of_ten(dollars: &str, power: u32) -> Result<Self, String> {
        scaled(dollars, i64::from(RATE_DECIMALS) - i64::from(power)).map(Self)
    }

    /// In yocto-dollars per unit.
    pub fn yocto_dollars(self) -> u128 {
        self.0
    }
}

/// Reads a rate in dollars per million tokens as people write it: `3`, `0.15`, `2.5e-1`.
/// For a YAML number that came as `f64` pass its shortest text (`to_string`): that is what
/// was written.
///
/// # Errors
/// Says what is wrong: not a decimal number, negative, or too large.
pub fn parse_rate(dollars_per_million: &str) -> Result<Rate, String> {
    Rate::per_power_of_ten(dollars_per_million, 6)
}

/// A sum under way, in yocto-dollars. It cannot saturate before a [`Cost`] does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Total(u128);

impl Total {
    /// Adds `count` units at a rate.
    pub fn add(&mut self, count: u64, rate: Rate) {
        let amount = u128::from(count).saturating_mul(rate.0);
        self.0 = self.0.saturating_add(amount);
    }

    /// Rounded half up to a pico-dollar.
    pub fn cost(self) -> Cost {
        let pico = self.0.saturating_add(RATE_PER_COST / 2) / RATE_PER_COST;
        Cost(u64::try_from(pico).unwrap_or(u64::MAX))
    }
}

/// A decimal number times `10^shift`, rounded half up to an integer.
fn scaled(text: &str, shift: i64) -> Result<u128, String> {
    let number = Decimal::parse(text.trim())?;
    number.scaled(shift).ok_or_else(|| too_large(text))
}

fn too_large(text: &str) -> String {
    format!("{text:?} is too large for an amount of dollars")
}

/// A number as written: its digits, and where the point stands among them.
struct Decimal {
    /// Without leading zeros.
    digits: Vec<u8>,
    /// Digits in front of the point; negative when zeros follow it.
    point: i64,
}

impl Decimal {
    fn parse(text: &str) -> Result<Self, String> {
        let malformed = || format!("{text:?} is not a decimal number, such as 0.25");
        if text.starts_with('-') {
            return Err(format!("{text:?} is negative; a price is at least 0"));
        }
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(malformed());
        }
        let exponent: i32 = exponent.parse().map_err(|_| malformed())?;
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        let point = i64::try_from(whole.len()).map_err(|_| malformed())? + i64::from(exponent)
            - i64::try_from(zeros).map_err(|_| malformed())?;
        Ok(Self { digits, point })
    }

    /// Times `10^shift`, rounded half up; `None` if that does not fit.
    fn scaled(&self, shift: i64) -> Option<u128> {
        if self.digits.is_empty() {
            return Some(0);
        }
        let Ok(length) = usize::try_from(self.point + shift) else {
            return Some(0); // the first digit stands behind the first decimal
        };
        // 39 digits are the most that fit.
        if length > 39 {
            return None;
        }
        let digit = |at: usize| self.digits.get(at).map_or(0, |digit| digit - b'0');
        let mut value: u128 = 0;
        for at in 0..length {
            value = value.checked_mul(10)?.checked_add(digit(at).into())?;
        }
        value.checked_add(u128::from(digit(length) >= 5))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn costs_show_every_digit() {
        for (pico, text) in [
            (0, "0"),
            (1, "0.000000000001"),
            (150_000, "0.00000015"),
            (1_000_000_000_000, "1"),
            (12_500_000_000_000, "12.5"),
            (u64::MAX, "18446744.073709551615"),
        ] {
            assert_eq!(Cost(pico).to_string(), text);
            assert_eq!(Cost::parse(text), Ok(Cost(pico)));
        }
        assert_eq!(format!("{:>6}", Cost(500_000_000_000)), "   0.5");
        assert_eq!(Cost(150_000).as_dollars(), 0.000_000_15);
        assert_eq!(Cost(u64::MAX).saturating_add(Cost(1)), Cost(u64::MAX));
        assert_eq!(Cost(1).saturating_sub(Cost(2)), Cost::ZERO);
    }

    #[test]
    fn rates_are_read_digit_by_digit() {
        let dollar = 1_000_000_000_000_000_000; // per million tokens, in yocto-dollars a token
        for (text, yocto) in [
            ("0", 0),
            ("0.0", 0),
            ("3", 3 * dollar),
            ("3.00", 3 * dollar),
            ("003.", 3 * dollar),
            (".5", dollar / 2),
            ("0.1", dollar / 10),
            ("2.5e-1", dollar / 4),
            ("1E+2", 100 * dollar),
            ("0.000000000000000001", 1),
            ("0.0000000000000000005", 1), // half up
            ("0.00000000000000000049", 0),
            ("5e-2147483648", 0),
            ("0e2147483647", 0),
            // As f64 arithmetic would not have it: 0.1 + 0.2.
            ("0.30000000000000004", 300_000_000_000_000_040),
        ] {
            assert_eq!(parse_rate(text).unwrap().yocto_dollars(), yocto, "{text}");
        }
        let each = |text| Rate::each(text).unwrap();
        assert_eq!(each("0.000001"), parse_rate("1").unwrap());
        assert_eq!(Rate::per_power_of_ten("10", 3).unwrap(), each("0.01"));
    }

    #[test]
    fn what_is_no_rate_is_told() {
        for (text, told) in [
            ("", "not a decimal number"),
            (".", "not a decimal number"),
            ("three", "not a decimal number"),
            ("1,5", "not a decimal number"),
            ("1_000", "not a decimal number"),
            ("0x10", "not a decimal number"),
            ("1e", "not a decimal number"),
            ("1e99999999999", "not a decimal number"),
            ("NaN", "not a decimal number"),
            (".inf", "not a decimal number"),
            ("1.2.3", "not a decimal number"),
            ("٣", "not a decimal number"),
            ("-1", "negative"),
            ("1e30", "too large"),
            ("1e2147483647", "too large"),
        ] {
            let error = parse_rate(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        assert!(Cost::parse("18446745").unwrap_err().contains("too large"));
    }

    #[test]
    fn a_total_is_rounded_once() {
        // 0.4 pico-dollars a token: three of them are 1.2, rounded one by one they were 0.
        let rate = Rate::each("4e-13").unwrap();
        let mut total = Total::default();
        for _ in 0..3 {
            total.add(1, rate);
        }
        assert_eq!(total.cost(), Cost(1));
        total.add(1, rate); // 1.6
        assert_eq!(total.cost(), Cost(2));
    }

    #[test]
    fn totals_saturate() {
        let mut total = Total::default();
        total.add(u64::MAX, Rate(u128::MAX));
        total.add(u64::MAX, Rate(u128::MAX));
        assert_eq!(total.cost(), Cost(u64::MAX));
    }
}
