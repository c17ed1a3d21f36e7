#!/bin/sh
# Installs missing programs and starts no system service. The argument is one of servers, backup,
# wrk, contract, locust, browser, compat, faults, scale, jmeter, deploy and alerts.
#
# It uses apt-get on Debian and Ubuntu (with sudo only when not root), and Homebrew on macOS. On any
# other system it says what to install.
set -eu

has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/opt/homebrew/bin/$1" ]; }
has_any() { for name in "$@"; do if has "$name"; then return 0; fi; done; return 1; }

apt=""
brew=""
words=""

# need WORDS APT BREW: notes that something is missing.
need() { words="$words
  - $1"; apt="$apt $2"; brew="$brew $3"; }

case "${1:-servers}" in
servers)
    has_any redis-server valkey-server || need "redis-server 7 or newer (or valkey-server)" redis-server redis
    has_any mariadbd mysqld || need "a MariaDB 10.6+ or MySQL 8+ server (mariadbd or mysqld)" mariadb-server-core mariadb
    has_any mysqld || has_any mariadb-install-db mysql_install_db ||
        need "mariadb-install-db" mariadb-server-core mariadb
    # mariadb-install-db calls this program, which Debian has in another package.
    has_any mysqld || has_any my_print_defaults ||
        need "my_print_defaults" mariadb-client-core mariadb
    has cc || need "a C compiler (cc)" build-essential ""
    has ps || need "ps" procps ""
    ;;
backup)
    has_any mariadb-dump mysqldump || need "mariadb-dump and mariadb-binlog" mariadb-client mariadb
    ;;
wrk)
    has wrk || need "wrk" wrk wrk
    has curl || need "curl" curl curl
    ;;
contract | locust)
    [ "$1" = locust ] || has npm || need "node 20 or newer with npm" npm node
    has python3 || need "python3" python3 python
    python3 -c "import ensurepip, venv" 2>/dev/null || need "python3-venv" python3-venv ""
    has curl || need "curl" curl curl
    ;;
browser)
    has_any chromium google-chrome chromium-browser || need "chromium" chromium "--cask chromium"
    has chromedriver || need "chromedriver" chromium-driver "--cask chromedriver"
    # Without this font, Korean text is drawn as boxes.
    fc-list 2>/dev/null | grep -q CJK || [ -d /usr/share/fonts/opentype/noto ] || need "a Korean font" fonts-noto-cjk ""
    has python3 || need "python3" python3 python
    python3 -c "import ensurepip, venv" 2>/dev/null || need "python3-venv" python3-venv ""
    ;;
compat)
    has debootstrap || need "debootstrap" debootstrap ""
    ;;
faults)
    has wrk || need "wrk" wrk wrk
    # Without it, the one fault about clocks is skipped and says so.
    has faketime || need "faketime" faketime libfaketime
    ;;
scale)
    has nginx || need "nginx" nginx-light nginx
    has_any redis-cli valkey-cli || need "redis-cli" redis-tools redis
    ;;
deploy)
    has nginx || need "nginx" nginx-light nginx
    has_any redis-server valkey-server || need "redis-server 7 or newer" redis-server redis
    has shellcheck || need "shellcheck" shellcheck shellcheck
    # Debian's kubectl (1.20) builds no components; GitHub's machines have a newer one.
    has_any kubectl kustomize || need "kubectl 1.27 or newer, or kustomize 5" "" kubernetes-cli
    has python3 || need "python3" python3 python
    python3 -c "import ensurepip, venv" 2>/dev/null || need "python3-venv" python3-venv ""
    ;;
alerts)
    # Debian has promtool in the package of the server, which the policy below does not let start.
    has promtool || need "promtool" prometheus prometheus
    ;;
jmeter)
    has java || need "Java 11 or newer" openjdk-17-jre-headless openjdk
    has python3 || need "python3 with pip" "python3 python3-pip" python
    python3 -m pip --version >/dev/null 2>&1 || need "pip" python3-pip ""
    has curl || need "curl" curl curl
    ;;
esac

[ -n "$words" ] || exit 0

if has apt-get; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    # Debian's redis-server package would start a system service: a policy for the time of the
    # installation forbids it, and is removed again.
    policy=/usr/sbin/policy-rc.d
    made=""
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod +x "$policy"
        made=yes
    fi
    trap '[ -z "$made" ] || $sudo rm -f "$policy"' EXIT
    echo "installing:$apt"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $apt >/dev/null
elif has brew; then
    echo "installing:$brew"
    # shellcheck disable=SC2086 # a list of packages
    [ -z "$(echo "$brew" | tr -d ' ')" ] || brew install -q $brew
    case "$words" in *"C compiler"*) xcode-select --install || true ;; esac
else
    printf 'this system is not known to the installer; please install:%s\n' "$words" >&2
    exit 1
fi
