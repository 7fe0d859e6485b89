# SPDX-License-Identifier: MIT
# bash completion for unshard. What there is to complete is taken from --help, which is made of the
# same table as the program's parser.

# The commands, one a line.
_unshard_commands() {
    unshard --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'
}

# The options of a command, short and long, one a line.
_unshard_options() {
    unshard "$1" --help 2>/dev/null |
        sed -n 's/^  -\(.\), --\([a-z-]*\).*/-\1\n--\2/p'
    unshard "$1" --help 2>/dev/null | grep -q '^Under -o' && echo -o
}

# What can stand under -o, one a line: "name" or "name=", and each word of "name=a|b".
_unshard_listed() {
    unshard "$1" --help 2>/dev/null |
        sed -n '/^Under -o/,/^$/ s/^  \([a-z_]*\)\(=[^ ]*\)\{0,1\}  *.*/\1\2/p' |
        while IFS= read -r option; do
            case $option in
            *\|*)
                local name=${option%%=*} word words
                IFS='|' read -ra words <<<"${option#*=}"
                for word in "${words[@]}"; do echo "$name=$word"; done
                ;;
            *=*) echo "${option%%=*}=" ;;
            *) echo "$option" ;;
            esac
        done
}

# Mount points of unshard, and the components of one.
_unshard_mounts() {
    awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "fuse.unshard") print $5 }' \
        /proc/self/mountinfo 2>/dev/null
}

_unshard_components() {
    sed -n 's/^.*"name":[[:space:]]*"\(.*\)",$/\1/p' "$1/.unshard/status.json" 2>/dev/null
}

_unshard_complete_list() {
    local done='' last=$1 candidate
    case $last in
    *,*) done=${last%,*}, last=${last##*,} ;;
    esac
    while IFS= read -r candidate; do
        COMPREPLY+=("$done$candidate")
    done < <(compgen -W "$(_unshard_listed "$2")" -- "$last")
    compopt -o nospace 2>/dev/null
}

# The operands given so far, in the array `operands`.
_unshard_read_operands() {
    local i word
    operands=()
    for ((i = 2; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        -o | -n | -t | -a | --interval | --timeout | --at) ((i++)) ;;
        -*) ;;
        *) operands+=("$word") ;;
        esac
    done
}

# Behind the -- of run stands the command line of another program, which completes itself.
_unshard_behind_dashes() {
    local i
    for ((i = 2; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -- ]] || continue
        if declare -F _command_offset >/dev/null; then
            _command_offset $((i + 1))
        elif ((i + 1 == COMP_CWORD)); then
            mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
        else
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
        fi
        return 0
    done
    return 1
}

_unshard() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command=${COMP_WORDS[1]} operands candidate
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$(_unshard_commands) --help --version" -- "$current")
        return
    fi
    if [[ $command == run ]] && _unshard_behind_dashes; then
        return
    fi
    if [[ $previous == -o ]]; then
        _unshard_complete_list "$current" "$command"
        return
    fi
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_unshard_options "$command")" -- "$current")
        return
    fi
    _unshard_read_operands
    case $command in
    umount | status | wait | evict | warm | upgrade)
        if ((${#operands[@]} == 0)); then
            mapfile -t COMPREPLY < <(compgen -W "$(_unshard_mounts)" -- "$current")
            ((${#COMPREPLY[@]} > 0)) && return
        elif [[ $command == evict || $command == warm ]]; then
            while IFS= read -r candidate; do
                [[ $candidate == "$current"* ]] && COMPREPLY+=("$(printf %q "$candidate")")
            done < <(_unshard_components "${operands[0]}")
            return
        fi
        ;;
    esac
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
}

# COMP_WORDBREAKS splits at = and :, which a list of -o options must not be.
_unshard_start() {
    local COMP_WORDBREAKS=${COMP_WORDBREAKS//[=:]/}
    if declare -F _get_comp_words_by_ref >/dev/null; then
        local cur words cword
        _get_comp_words_by_ref -n =: cur words cword
        COMP_WORDS=("${words[@]}")
        COMP_CWORD=$cword
    fi
    _unshard
    declare -F __ltrimcolon_completions >/dev/null && [[ -n ${cur-} ]] &&
        _unshard_trim "$cur"
}

# bash replaces only what follows the last = of the word.
_unshard_trim() {
    [[ $1 == *=* ]] || return 0
    local prefix=${1%"${1##*=}"} i
    for i in "${!COMPREPLY[@]}"; do
        COMPREPLY[i]=${COMPREPLY[i]#"$prefix"}
    done
}

complete -F _unshard_start unshard
