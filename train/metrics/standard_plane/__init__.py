"""Detection of standard planes."""
