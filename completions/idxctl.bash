_idxctl_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _IDXCTL_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _idxctl_completion idxctl
