"""Network namespaces, WireGuard programs and traffic, for all system tests.

isolation   private mounts, processes and network: nothing outlives a run
settings    which program is tested, against which peer
case        the base of test cases;  runner  runs them side by side;  report  prints results
command     checks that only run commands
lab/        the namespaces and programs of one test: namespace, node, pair, chain, forward
traffic/    ping, streams with checksums, numbered datagrams, captures, bad networks
"""
