#!/bin/sh
# A client of the manager with socat: a call, an error, and a stream of replies.
#
# Usage: manager_client.sh SOCKET CONTAINER REPLIES
#
# REPLIES is how many replies of the watcher are printed before it ends.
set -eu

# socat runs this file once more, see below.  Standard input and output are the socket itself then:
# one write is one packet, and one read is one reply.  Descriptor 3 is the terminal.
if [ "$1" = --on-the-socket ]; then
    printf '%s' "$CALL"
    while [ "$REPLIES" -gt 0 ]; do
        reply=$(dd bs=65536 count=1 2> /dev/null)
        [ -n "$reply" ] || exit 1
        printf '%s\n' "$reply" >&3
        REPLIES=$((REPLIES - 1))
    done
    exit
fi

SOCKET=$1
CONTAINER=$2

# One call in one packet (SOCK_SEQPACKET is type 5), one reply.  The service closes the connection
# after the answer, because socat has; the reply may take as long as -t says, in seconds.
call() {
    printf '%s' "$1" | socat -t 60 - "UNIX-CONNECT:$SOCKET,type=5"
    echo
}

call '{"method":"org.chanproxy.Manager.ListContainers"}'

# An error is a reply, too.
call '{"method":"org.chanproxy.Manager.Describe","parameters":{"container":"no-such"}}'

# With "more": the present state, then a reply for each change.
export REPLIES=$3
export CALL='{"method":"org.chanproxy.Manager.RegisterWakeWatcher","more":true,
    "parameters":{"container":"'"$CONTAINER"'"}}'
socat "UNIX-CONNECT:$SOCKET,type=5" "EXEC:sh $0 --on-the-socket,nofork" 3>&1
