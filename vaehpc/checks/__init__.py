"""What `doctor` checks: each check is a function from what was found to findings, with how to mend what is wrong."""
