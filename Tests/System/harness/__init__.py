"""Network namespaces, WireGuard programs and traffic for the interoperability tests.

isolation   private mounts, processes and network: nothing outlives the run
settings    which program is tested, against which peer
lab         one test's namespaces and nodes, taken down and checked for leftovers
  namespace, node, program, pair
traffic     ping, iperf3, transfers with checksums, numbered flows
uapi        the configuration protocol by raw socket
capture     packets on the wire
case        the base of all test cases;  runner  runs them side by side
"""
