//! The limits of each account that workers have as their login.

use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::{RateLimits, cli::login::Identity};

/// Maximum number of accounts whose limits are remembered. Workers of a former account may still run.
const MAX_ACCOUNTS: usize = 4;

/// The limits of the accounts that the server used last, so that a new account does not have those of the former one.
#[derive(Debug, Default)]
pub(crate) struct LimitsByAccount(Mutex<Vec<(Option<Identity>, Arc<RateLimits>)>>);

impl LimitsByAccount {
    /// Returns the limits of an account.
    pub(crate) fn of(&self, account: Option<Identity>) -> Arc<RateLimits> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = accounts.iter().position(|(known, _)| *known == account);
        let limits = known.map(|index| accounts.remove(index).1).unwrap_or_default();
        if accounts.len() == MAX_ACCOUNTS {
            accounts.remove(0);
        }
        // The account that was used last is the last one.
        accounts.push((account, Arc::clone(&limits)));
        limits
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::engine::LimitsReading;

    #[test]
    fn limits_of_another_account_are_unknown_and_bounded() {
        let accounts = LimitsByAccount::default();
        let account = |number: u8| Some(Identity::for_test(number));
        let reading = LimitsReading { plan: "pro".to_owned(), ..LimitsReading::default() };
        accounts.of(account(0)).update(reading, SystemTime::UNIX_EPOCH);
        assert_eq!(accounts.of(account(1)).current(), None);
        assert!(accounts.of(account(0)).current().is_some());
        for number in 1..100 {
            accounts.of(account(number));
        }
        assert_eq!(accounts.0.lock().unwrap().len(), MAX_ACCOUNTS);
        assert_eq!(accounts.of(account(0)).current(), None);
    }
}
