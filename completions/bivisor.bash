# bash completion for bivisor: commands, and options as `bivisor COMMAND --help` has them.
_bivisor() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local words line=${COMP_LINE:0:COMP_POINT}
    if [ "$COMP_CWORD" = 1 ]; then
        words=$(bivisor --help 2>/dev/null | sed -n 's/^  \([a-z]*\)  .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$words --help --version" -- "$cur")
        return
    fi
    case $prev in
    --engine) words="auto kvm bt interp" ;;
    --firmware) words="bios uefi" ;;
    --jail) words="auto on off require" ;;
    --virtio) words="pci mmio none" ;;
    --retention) words="flush pcid trace" ;;
    --boot-protocol) words="auto linux16 linux32 linux64 pvh multiboot" ;;
    --monitor) words="mux only socket=" ;;
    --direct) words="off auto on help" ;;
    --display) words="none text vnc=" ;;
    --net) words="user tap= socket= none" ;;
    --console | --serial) words="stdio null pty file= socket= connect=" ;;
    --cpu) words=$(bivisor run --cpu help 2>/dev/null | sed -n 's/^  \([A-Za-z][^ ]*\) .*/\1/p') ;;
    esac
    # Words behind a value's first comma; readline cuts at `=` and `:`.
    [[ ! $line =~ \ --display[=\ ]+vnc=[^\ ]*,[^\ =,]*$ ]] || words="${cur%,*},password= ${cur%,*},tablet"
    if [ -z "${words-}" ] && [[ $cur == -* ]]; then
        words=$(bivisor "$command" --help 2>/dev/null | grep -oE '(^|[ `,])--[a-z][a-z-]*' | tr -d ' `,' | sort -u)
        [ "$command" != run ] || words="$words --serial --console --monitor --escape --vsock --balloon --no-rng"
    fi
    [ -n "${words-}" ] || return 1 # files: the default
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    [[ ${COMPREPLY-} != *= ]] || compopt -o nospace
}
complete -o default -F _bivisor bivisor
