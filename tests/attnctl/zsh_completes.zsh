#!/usr/bin/env zsh
# zsh_completes.zsh SCRIPT LINE: what zsh's line editor makes of LINE and a tab, in a terminal of its own, with the
# completion SCRIPT. Prints what the terminal shows: the words that are possible, if there are several, and the line
# between << and >>.
emulate zsh
zmodload zsh/zpty
script=$1 line=$2
zpty editor "TERM=dumb zsh -f -i"
say() { zpty -w editor "$1" }
say "PROMPT='' RPROMPT='' LISTMAX=1000; unsetopt prompt_sp prompt_cr; stty -echo cols 200"
say "autoload -Uz compinit; compinit -u -D; source ${(q)script}; zstyle ':completion:*' list-prompt ''"
say 'show() { print -r -- "<<$BUFFER>>" }; zle -N show; bindkey "^T" show; setopt no_always_last_prompt; print rea""dy'
# Each read waits until the pattern has come.
zpty -r editor text '*ready*'
zpty -w -n editor "$line"$'\t\C-t'
zpty -r editor text '*<<*>>*'
print -r -- "$text"
zpty -d editor
