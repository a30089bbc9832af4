# Completion of culvert(8) for bash.

_culvert() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command='' word
    local options='--config --through --profile --mtu --state-dir --socket-buffer --workers
        --offload --no-offload --max-peers --max-allowed-ips --max-staged --staging-slots
        --handshake-ring --batch-packets --foreground --help --version'
    COMPREPLY=()
    # bash splits --name=value at the equals sign.
    if [ "$current" = = ]; then
        current=''
    elif [ "$previous" = = ]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $previous in
        --config | --through)
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            compopt -o filenames 2>/dev/null
            return
            ;;
        --state-dir)
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            compopt -o filenames 2>/dev/null
            return
            ;;
        --profile)
            mapfile -t COMPREPLY < <(compgen -W 'tiny standard gateway' -- "$current")
            return
            ;;
        --offload)
            # Complete the last name of a list.
            mapfile -t COMPREPLY < <(compgen -P "${current%"${current##*,}"}" \
                -W 'checksum tso uso gso gro mmsg all none' -- "${current##*,}")
            return
            ;;
        --mtu | --socket-buffer | --workers | --max-* | --staging-slots | --handshake-ring | \
            --batch-packets | --udp | --seconds)
            return
            ;;
    esac
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            forward | budget | genkey | genpsk | pubkey | selftest | bench | version | help)
                command=$word
                ;;
        esac
    done
    case $command in
        '') ;;
        forward | budget) options="$options --udp --max-flows" ;;
        bench) options='--seconds' ;;
        *) return ;;
    esac
    if [[ $current == -* || $command != '' ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
        return
    fi
    mapfile -t COMPREPLY < <(compgen \
        -W 'forward budget genkey genpsk pubkey selftest bench version help' -- "$current")
}
complete -F _culvert culvert
