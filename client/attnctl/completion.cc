#include "client/attnctl/completion.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/attnctl/commands.h"

namespace attnd::ctl {
namespace {

// Bash and zsh: sets `command` to the command on the line, and `flag` to the flag whose value is being typed. The two
// shells split the line differently; the words offered are the same.
constexpr char kChoose[] = R"sh(  case $plain in
@COMMANDS@  esac
  if [[ -n $flag ]]; then
    case "$command $flag" in
@VALUES@    esac
    return
  fi
  if [[ $cur == -* ]]; then
    case $command in
@FLAGS@    esac
    return
  fi
  case "$command/$plain" in
@WORDS@  esac
)sh";

constexpr char kBash[] = R"sh(# bash completion for attnctl; made by `attnctl completion bash`
_attnctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} command='' flag='' plain='' word i
  [[ $cur == '=' ]] && cur=''
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in
      =) ;;
@SWITCHES@      --*) flag=$word; [[ ${COMP_WORDS[i + 1]} == '=' ]] && ((i++)); ((i + 1 < COMP_CWORD)) && { flag=''; ((i++)); } ;;
      *) plain+="$word " ;;
    esac
  done
@CHOOSE@}
_attnctl_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }
_attnctl_files() { compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }
_attnctl_models() { _attnctl_words "$* $(attnctl models list --names --timeout 1s 2>/dev/null)"; }
_attnctl_sessions() { _attnctl_words "$(attnctl sessions list --ids --timeout 1s 2>/dev/null)"; }
complete -F _attnctl attnctl
)sh";

constexpr char kZsh[] = R"sh(#compdef attnctl
# zsh completion for attnctl; made by `attnctl completion zsh`
_attnctl_words() { compadd -- ${=1} }
_attnctl_files() { _files }
_attnctl_models() { compadd -- $@ $(attnctl models list --names --timeout 1s 2>/dev/null) }
_attnctl_sessions() { compadd -- $(attnctl sessions list --ids --timeout 1s 2>/dev/null) }
_attnctl() {
  local cur=${words[CURRENT]} command='' flag='' plain='' word i
  for ((i = 2; i < CURRENT; i++)); do
    word=${words[i]}
    case $word in
@SWITCHES@      --*=*) ;;
      --*) flag=$word; ((i + 1 < CURRENT)) && { flag=''; ((i++)); } ;;
      *) plain+="$word " ;;
    esac
  done
  if [[ $cur == --*=* ]]; then
    flag=${cur%%=*}
    compset -P '*='
  fi
@CHOOSE@}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _attnctl "$@"; else compdef _attnctl attnctl; fi
)sh";

constexpr char kFish[] = R"sh(# fish completion for attnctl; made by `attnctl completion fish`
function __attnctl_plain
  set -l words (commandline -opc)[2..-1]
  set -l plain
  set -l skip 0
  for word in $words
    if test $skip = 1
      set skip 0
    else if contains -- $word @SWITCHES@
    else if string match -q -- '--*=*' $word
    else if string match -q -- '--*' $word
      set skip 1
    else
      set -a plain $word
    end
  end
  string join ' ' -- $plain
end
function __attnctl_in
  string match -q -- "$argv[1] *" (__attnctl_plain)' '
end
function __attnctl_after
  test "$argv[1]" = (__attnctl_plain | string collect --allow-empty)
end
function __attnctl_models
  attnctl models list --names --timeout 1s 2>/dev/null
end
function __attnctl_sessions
  attnctl sessions list --ids --timeout 1s 2>/dev/null
end
complete -c attnctl -f
)sh";

using Words = std::vector<std::string>;

// A command's flags, followed by those of all commands.
std::vector<const Flag*> FlagsOf(const Command& command, const Flags& flags) {
  std::vector<const Flag*> all;
  for (const std::string& name : command.flags) all.push_back(FlagOf(command, flags, name));
  all.insert(all.end(), flags.common.begin(), flags.common.end());
  return all;
}

// Longest names first: "bias compare" before "bias".
std::vector<const Command*> ByLength() {
  std::vector<const Command*> all;
  for (const Command& command : Commands()) all.push_back(&command);
  std::stable_sort(all.begin(), all.end(),
                   [](const Command* a, const Command* b) { return a->name.size() > b->name.size(); });
  return all;
}

// The possible first words of a command or, in a group, its second words.
Words NextWords(const std::string& group) {
  Words next;
  for (const Command& command : Commands()) {
    const Words parts = absl::StrSplit(command.name, ' ');
    const bool in_group = parts.size() == 2 && parts[0] == group;
    const std::string& word = in_group ? parts[1] : parts[0];
    if ((group.empty() || in_group) && std::count(next.begin(), next.end(), word) == 0) next.push_back(word);
  }
  if (group.empty()) next.emplace_back("help");
  return next;
}

Words Groups() {
  Words groups;
  for (const Command& command : Commands()) {
    const Words parts = absl::StrSplit(command.name, ' ');
    if (parts.size() == 2 && std::count(groups.begin(), groups.end(), parts[0]) == 0) groups.push_back(parts[0]);
  }
  return groups;
}

// The possible words after a command name that is also a group; none for other names.
Words AfterName(const std::string& name) {
  const Words groups = Groups();
  return std::count(groups.begin(), groups.end(), name) == 0 ? Words() : NextWords(name);
}

// How a value is completed: with fixed words, file names, models or sessions; kNone for free text.
struct Values {
  enum Kind { kNone, kWords, kFiles, kModels, kSessions } kind = kNone;
  Words words = {};
};

Values ValuesOf(const std::string& placeholder, const Words& choices) {
  if (!choices.empty()) return {Values::kWords, choices};
  const absl::string_view name = placeholder;
  if (name == "FILE" || name == "PATH") return {Values::kFiles};
  if (name == "MODEL" || name == "SOURCE") return {Values::kModels};
  if (name == "ID") return {Values::kSessions};
  if (name == "SHELL") return {Values::kWords, CompletedShells()};
  return {};
}

std::string Call(const Values& values) {
  switch (values.kind) {
    case Values::kWords:
      return absl::StrCat("_attnctl_words '", absl::StrJoin(values.words, " "), "'");
    case Values::kFiles:
      return "_attnctl_files";
    case Values::kModels:
      return "_attnctl_models";
    case Values::kSessions:
      return "_attnctl_sessions";
    case Values::kNone:
      break;
  }
  return ":";
}

Words Switches(const Flags& flags) {
  Words switches = {"--help", "--version", "-h"};
  for (const Flag* flag : flags.own) {
    if (flag->is_switch()) switches.push_back(absl::StrCat("--", flag->name()));
  }
  return switches;
}

// The template of bash or zsh with its tables filled in.
std::string WithCases(const char* text, const Flags& flags) {
  std::string commands, values, by_command, words;
  for (const Command* command : ByLength()) {
    absl::StrAppend(&commands, "    '", command->name, " '*) command='", command->name, "' ;;\n");
    Words names = {"--help"};
    for (const Flag* flag : FlagsOf(*command, flags)) {
      names.push_back(absl::StrCat("--", flag->name()));
      const Values its = ValuesOf(flag->placeholder(), ChoicesOf(*command, *flag));
      if (its.kind == Values::kNone) continue;
      absl::StrAppend(&values, "      '", command->name, " --", flag->name(), "') ", Call(its), " ;;\n");
    }
    absl::StrAppend(&by_command, "      '", command->name, "') _attnctl_words '", absl::StrJoin(names, " "), "' ;;\n");
    // The first argument is completed here; the second and later ones are completed as the last word of
    // Command::arguments.
    const Words arguments = ArgumentsOf(*command);
    if (arguments.empty()) continue;
    const auto call = [](const std::string& word) { return Call(ValuesOf(word.substr(0, word.find('.')), {})); };
    // After `bias`, `compare` is possible too.
    const Words deeper = AfterName(command->name);
    absl::StrAppend(&words, "    '", command->name, "/", command->name, " ') ", call(arguments.front()),
                    deeper.empty() ? "" : " ", absl::StrJoin(deeper, " "), " ;;\n");
    if (TakesArguments(*command, 2)) {
      absl::StrAppend(&words, "    '", command->name, "/'*) ", call(arguments.back()), " ;;\n");
    }
  }
  absl::StrAppend(&by_command, "      *) _attnctl_words '--help --version' ;;\n");
  absl::StrAppend(&words, "    / | '/help ') _attnctl_words '", absl::StrJoin(NextWords(""), " "), "' ;;\n");
  for (const std::string& group : Groups()) {
    absl::StrAppend(&words, "    '/", group, " ' | '/help ", group, " ') _attnctl_words '",
                    absl::StrJoin(NextWords(group), " "), "' ;;\n");
  }
  return absl::StrReplaceAll(absl::StrReplaceAll(text, {{"@CHOOSE@", kChoose}}),
                             {{"@SWITCHES@", absl::StrCat("      ", absl::StrJoin(Switches(flags), " | "), ") ;;\n")},
                              {"@COMMANDS@", commands},
                              {"@VALUES@", values},
                              {"@FLAGS@", by_command},
                              {"@WORDS@", words}});
}

std::string Quoted(absl::string_view text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

// The options of fish's `complete` for a flag with these values.
std::string FishValues(const Values& values) {
  if (values.kind == Values::kModels) return " -x -a '(__attnctl_models)'";
  if (values.kind == Values::kFiles) return " -r -F";
  return values.kind == Values::kNone ? " -x" : absl::StrCat(" -x -a ", Quoted(absl::StrJoin(values.words, " ")));
}

std::string Fish(const Flags& flags) {
  std::string text = absl::StrReplaceAll(kFish, {{"@SWITCHES@", absl::StrJoin(Switches(flags), " ")}});
  for (const Command& command : Commands()) {
    const Words parts = absl::StrSplit(command.name, ' ');
    const std::string before = parts.size() == 2 ? parts[0] : "";
    for (const std::string& start : Words{before, before.empty() ? "help" : "help " + before}) {
      absl::StrAppend(&text, "complete -c attnctl -n '__attnctl_after \"", start, "\"' -a ", parts.back(), " -d ",
                      Quoted(command.summary), "\n");
    }
    const std::string in = absl::StrCat("complete -c attnctl -n '__attnctl_in \"", command.name, "\"'");
    for (const Flag* flag : FlagsOf(command, flags)) {
      const Values values = ValuesOf(flag->placeholder(), ChoicesOf(command, *flag));
      absl::StrAppend(&text, in, " -l ", flag->name(), flag->is_switch() ? "" : FishValues(values), " -d ",
                      Quoted(flag->help()), "\n");
    }
    for (const std::string& argument : ArgumentsOf(command)) {
      const Values values = ValuesOf(argument.substr(0, argument.find('.')), {});
      if (values.kind == Values::kFiles) absl::StrAppend(&text, in, " -F\n");
      if (values.kind == Values::kModels) absl::StrAppend(&text, in, " -a '(__attnctl_models)'\n");
      if (values.kind == Values::kSessions) absl::StrAppend(&text, in, " -a '(__attnctl_sessions)'\n");
      if (values.kind == Values::kWords) {
        absl::StrAppend(&text, in, " -a ", Quoted(absl::StrJoin(values.words, " ")), "\n");
      }
    }
  }
  for (const std::string& group : Groups()) {
    for (const char* start : {"", "help"}) {
      absl::StrAppend(&text, "complete -c attnctl -n '__attnctl_after \"", start, "\"' -a ", group, "\n");
    }
  }
  absl::StrAppend(&text, "complete -c attnctl -n '__attnctl_after \"\"' -a help -d 'describe a command'\n");
  return text + "complete -c attnctl -l help -s h -d 'say what a command does'\n";
}

}  // namespace

const Words& CompletedShells() {
  static const auto* const shells = new Words{"bash", "zsh", "fish"};
  return *shells;
}

std::string CompletionScript(const std::string& shell, const Flags& flags) {
  if (shell == "fish") return Fish(flags);
  return WithCases(shell == "bash" ? kBash : kZsh, flags);
}

}  // namespace attnd::ctl
