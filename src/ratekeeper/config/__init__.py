"""What an operator writes in a file: accounts, their limits and tiers."""
