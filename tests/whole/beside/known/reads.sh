# Reads lines from its standard input, each with a time limit; "limit N" sets that.
limit=12 number=0
echo over 0
while true; do
    if read -r -t "$limit" word rest; then
        [ "$word" != limit ] || limit=$rest
        echo over "$number"
        echo line "$word" "$rest"
    else
        number=$((number + 1))
        echo over "$number"
    fi
done
