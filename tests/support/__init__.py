"""What the tests stand on: real etcd processes, network namespaces, strategies."""
