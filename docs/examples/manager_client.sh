#!/bin/sh
# A client of the manager with socat: a call, an error, and a stream of replies.
#
# Usage: manager_client.sh SOCKET CONTAINER REPLIES
#
# REPLIES is how many replies of the watcher are printed before it ends.  A call that takes
# descriptors is beyond socat: "chanproxy call --fd" makes those.
set -eu

LARGEST=262144 # bytes of a packet; what is longer would be cut

# socat runs this file once more, see below.  Standard input and output are the socket itself then:
# one write is one packet, and one read is one reply.  Descriptor 3 is our standard output.
if [ "${1:-}" = --on-the-socket ]; then
    printf '%s' "$CALL"
    while [ "$REPLIES" -gt 0 ]; do
        reply=$(dd bs="$LARGEST" count=1 2> /dev/null)
        [ -n "$reply" ] || exit 1 # the service has closed the connection
        printf '%s\n' "$reply" >&3
        REPLIES=$((REPLIES - 1))
    done
    exit
fi

if [ $# -ne 3 ]; then
    echo "usage: $0 SOCKET CONTAINER REPLIES" >&2
    exit 2
fi

# SOCK_SEQPACKET is type 5.  In quotes, because socat has a use for commas and colons itself.
ADDRESS="UNIX-CONNECT:\"$1\",type=5"
CONTAINER=$2

# One call in one packet, one reply.  The service closes the connection after the answer, because
# socat has closed its sending; the answer may take as long as -t says, in seconds.
call() {
    printf '%s' "$1" | socat -b "$LARGEST" -t 60 - "$ADDRESS"
    echo
}

call '{"method":"org.chanproxy.Manager.ListContainers"}'

# An error is a reply, too.
call '{"method":"org.chanproxy.Manager.Describe","parameters":{"container":"no-such"}}'

# With "more": the present state, then a reply for each change.
CALL='{"method":"org.chanproxy.Manager.RegisterWakeWatcher","more":true,"parameters":'
export CALL="$CALL{\"container\":\"$CONTAINER\"}}" REPLIES="$3" PROGRAM="$0"
socat "$ADDRESS" SYSTEM:'exec sh \"$PROGRAM\" --on-the-socket,nofork' 3>&1
