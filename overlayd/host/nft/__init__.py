"""Our own nftables table: written and listed by the program nft, watched by netlink."""
