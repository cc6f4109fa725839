"""The checker: every state that a few keepers and a store can reach, looked at one by one."""
