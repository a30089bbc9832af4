# Completion of culvert(8) for fish.

complete -c culvert -f
set -l commands forward budget genkey genpsk pubkey selftest bench version help
set -l none "not __fish_seen_subcommand_from $commands"
complete -c culvert -n $none -a forward -d 'UDP ports into a tunnel, as any user'
complete -c culvert -n $none -a budget -d 'Print what memory the options take'
complete -c culvert -n $none -a genkey -d 'Print a new private key'
complete -c culvert -n $none -a genpsk -d 'Print a new preshared key'
complete -c culvert -n $none -a pubkey -d 'Read a private key, print its public key'
complete -c culvert -n $none -a selftest -d 'Check this device'
complete -c culvert -n $none -a bench -d 'Measure this device'
complete -c culvert -n $none -a version -d 'Print the version'
complete -c culvert -n $none -a help -d 'Print a summary'

complete -c culvert -l config -r -F -d 'Keys, peers, addresses and MTU'
complete -c culvert -l through -r -F -d 'The tunnel around it'
complete -c culvert -l profile -x -a 'tiny standard gateway' -d Memory
complete -c culvert -l mtu -x -d 'MTU that the interface starts with'
complete -c culvert -l state-dir -x -a '(__fish_complete_directories)' \
    -d 'Where the last handshake timestamp is kept'
complete -c culvert -l socket-buffer -x -d 'What the kernel may hold for each socket'
complete -c culvert -l workers -x -d 'Threads that carry packets'
complete -c culvert -l offload -x -a "(__fish_append , checksum tso uso gso gro mmsg) all none" \
    -d 'What to leave to the kernel'
complete -c culvert -l no-offload -d 'Leave nothing to the kernel'
complete -c culvert -l max-peers -x -d Peers
complete -c culvert -l max-allowed-ips -x -d 'Allowed IPs of all peers together'
complete -c culvert -l max-staged -x -d 'Packets that wait for a handshake'
complete -c culvert -l staging-slots -x -d 'Slots for those of all peers'
complete -c culvert -l handshake-ring -x -d 'Handshake messages that wait'
complete -c culvert -l batch-packets -x -d 'Packets carried at once'
complete -c culvert -l udp -x -d 'LISTEN:PORT=DESTINATION:PORT' \
    -n '__fish_seen_subcommand_from forward budget'
complete -c culvert -l max-flows -x -d 'Clients at a time' \
    -n '__fish_seen_subcommand_from forward budget'
complete -c culvert -l seconds -x -d 'Time for each measurement' \
    -n '__fish_seen_subcommand_from bench'
complete -c culvert -s f -l foreground -d 'Stay in the foreground'
complete -c culvert -s h -l help -d 'Print a summary'
complete -c culvert -s v -l version -d 'Print the version'
