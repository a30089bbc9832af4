#!/bin/sh
# install.sh [--root DIR] [--system systemd|openrc|openwrt]: installs Culvert from this folder.
# install.sh --remove: removes it; the files in /etc/culvert stay.
#
# It needs only a shell and basic tools such as BusyBox's. It keeps your changes below /etc, and
# starts nothing: its last lines tell you how to.

set -eu
umask 022
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=
system=
is_removing=no

die() {
    echo "install.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --remove) is_removing=yes ;;
        --root | --system)
            [ $# -ge 2 ] || die "$1 needs a value"
            case $1 in
                --root) root=${2%/} ;;
                *) system=$2 ;;
            esac
            shift
            ;;
        *) die "usage: install.sh [--root DIR] [--system systemd|openrc|openwrt] [--remove]" ;;
    esac
    shift
done

if [ -z "$system" ]; then
    if [ -f "$root/etc/openwrt_release" ] || [ -x "$root/sbin/procd" ]; then
        system=openwrt
    elif [ -x "$root/sbin/openrc-run" ] || [ -x "$root/usr/sbin/openrc-run" ]; then
        system=openrc
    elif [ -d "$root/etc/systemd" ] || [ -d "$root/usr/lib/systemd/system" ]; then
        system=systemd
    else
        die "no systemd, OpenRC or OpenWrt here; choose with --system, or copy culvert to /usr/bin"
    fi
fi
case $system in
    systemd | openrc | openwrt) ;;
    *) die "no system '$system': systemd, openrc or openwrt" ;;
esac
[ -n "$root" ] || [ "$(id -u)" -eq 0 ] || die "needs root, or --root DIR"

# In a checkout there is no program beside this file; on the wrong device it does not start.
[ -f "$here/culvert" ] || die "the program culvert is missing here"
if [ -z "$root" ] && [ "$is_removing" = no ]; then
    "$here/culvert" version >/dev/null 2>&1 ||
        die "the program does not run here; is this the right board?"
fi

# is_kept TARGET: an existing file belongs to the administrator.
is_kept() {
    case $1 in
        /etc/init.d/*) return 1 ;;
        /etc/*) return 0 ;;
    esac
    return 1
}

# put MODE FILE TARGET: renamed into place, because a running program cannot be overwritten.
put() {
    target=$root$3
    if is_kept "$3" && [ -e "$target" ]; then
        echo "kept       $target"
        return
    fi
    [ -d "${target%/*}" ] || mkdir -p "${target%/*}"
    [ ! -d "$target" ] || die "$target is a folder"
    cp "$here/$2" "$target.new"
    # If another user installs into --root, the files stay that user's.
    [ "$(id -u)" -ne 0 ] || chown 0:0 "$target.new"
    chmod "$1" "$target.new"
    mv -f "$target.new" "$target"
    echo "installed  $target"
}

drop() {
    if is_kept "$3"; then return; fi
    [ -e "$root$3" ] || return 0
    rm -f "$root$3"
    echo "removed    $root$3"
}

each() {
    while read -r mode file target systems; do
        case $mode in
            '' | '#'*) continue ;;
        esac
        case ",$systems," in
            *",$system,"*) "$1" "$mode" "$file" "$target" ;;
        esac
    done <"$here/files"
}

if [ "$is_removing" = yes ]; then
    each drop
    echo "$root/etc/culvert stays: it may contain private keys."
    exit 0
fi

# Restrict access before the folder contains private keys.
if [ ! -d "$root/etc/culvert" ]; then
    mkdir -p "$root/etc/culvert"
    chmod 700 "$root/etc/culvert"
fi
each put

echo
echo "Copy a configuration to /etc/culvert/NAME.conf with mode 0600 (see example.conf)."
echo "Then:"
case $system in
    systemd)
        echo "    systemctl daemon-reload && systemctl enable --now culvert@NAME"
        ;;
    openrc)
        echo "    ln -s culvert /etc/init.d/culvert.NAME"
        echo "    rc-update add culvert.NAME && rc-service culvert.NAME start"
        ;;
    openwrt)
        echo "    service culvert enable && service culvert start"
        ;;
esac
