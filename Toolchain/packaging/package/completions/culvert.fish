# Completion of culvert(8) for fish.

complete -c culvert -f
set -l commands forward budget genkey genpsk pubkey selftest bench version help
set -l none "not __fish_seen_subcommand_from $commands"
complete -c culvert -n $none -a forward -d 'Forward UDP ports into a tunnel, without an interface or root'
complete -c culvert -n $none -a budget -d 'Print the memory that these options need'
complete -c culvert -n $none -a genkey -d 'Print a new private key'
complete -c culvert -n $none -a genpsk -d 'Print a new preshared key'
complete -c culvert -n $none -a pubkey -d 'Read a private key, print its public key'
complete -c culvert -n $none -a selftest -d 'Verify this build on this device'
complete -c culvert -n $none -a bench -d 'Measure this device'
complete -c culvert -n $none -a version -d 'Print the version'
complete -c culvert -n $none -a help -d 'Print a summary'

complete -c culvert -l config -r -F -d 'Keys, peers, addresses and MTU of the tunnel'
complete -c culvert -l through -r -F -d 'Configuration of an outer tunnel'
complete -c culvert -l profile -x -a 'tiny standard gateway' -d 'Limits for 16, 256 or 4096 peers'
complete -c culvert -l mtu -x -d 'Initial MTU of the interface'
complete -c culvert -l state-dir -x -a '(__fish_complete_directories)' \
    -d 'Keeps the last handshake timestamp here'
complete -c culvert -l socket-buffer -x -d 'Receive buffer of each socket'
complete -c culvert -l workers -x -d 'Packet threads'
complete -c culvert -l offload -x -a "(__fish_append , checksum tso uso gso gro mmsg) all none" \
    -d 'Kernel offloads to use'
complete -c culvert -l no-offload -d 'The same as --offload none'
complete -c culvert -l max-peers -x -d 'Peers'
complete -c culvert -l max-allowed-ips -x -d 'Allowed IPs, all peers together'
complete -c culvert -l max-staged -x -d 'Packets per peer that wait for a handshake'
complete -c culvert -l staging-slots -x -d '2 KB slots for waiting packets, all peers together'
complete -c culvert -l handshake-ring -x -d 'Queued handshake messages; at one eighth or more, cookies are required'
complete -c culvert -l batch-packets -x -d 'Packets per batch'
complete -c culvert -l udp -x -d 'Forward a local port to a destination behind the tunnel' \
    -n '__fish_seen_subcommand_from forward budget'
complete -c culvert -l max-flows -x -d 'Concurrent flows' \
    -n '__fish_seen_subcommand_from forward budget'
complete -c culvert -l seconds -x -d 'Duration of each measurement' \
    -n '__fish_seen_subcommand_from bench'
complete -c culvert -s f -l foreground -d 'Stay in the foreground'
complete -c culvert -s h -l help -d 'Print a summary'
complete -c culvert -s v -l version -d 'Print the version'
