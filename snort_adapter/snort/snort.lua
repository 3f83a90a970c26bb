-- A minimal Snort 3 for one replica: the agreed stream comes in through `-r FIFO`, alerts go out as JSON lines.
-- It stands alone: nothing of the installed configuration is included.  Rules come with `-R`, and the
-- builtin rules are on.  The comparison of replicas needs runs that repeat: one packet thread, no statistics by wall time.

HOME_NET = 'any'
EXTERNAL_NET = 'any'

ips = {
    enable_builtin_rules = true,
    variables = {
        nets = { HOME_NET = HOME_NET, EXTERNAL_NET = EXTERNAL_NET },
        ports = { HTTP_PORTS = '80 8000 8080' },
    },
}

stream = { max_flows = 262144 }
stream_ip = { }
stream_icmp = { }
stream_tcp = { }
stream_udp = { }
stream_user = { }
stream_file = { }

arp_spoof = { }
back_orifice = { }
cip = { }
dce_http_proxy = { }
dce_http_server = { }
dce_smb = { }
dce_tcp = { }
dce_udp = { }
dnp3 = { }
dns = { }
ftp_client = { }
ftp_data = { }
ftp_server = { }
gtp_inspect = { }
http_inspect = { }
http2_inspect = { }
iec104 = { }
imap = { }
mms = { }
modbus = { }
netflow = { }
pop = { }
rpc_decode = { }
s7commplus = { }
sip = { }
smtp = { }
ssh = { }
ssl = { }
telnet = { }

-- What a connection speaks, by its first bytes.
local http_requests = {
    'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'TRACE', 'CONNECT', 'OPTIONS', 'PATCH', 'PROPFIND', 'MKCOL', 'SEARCH',
}
local sip_requests = {
    'INVITE', 'CANCEL', 'BYE', 'ACK', 'OPTIONS', 'REGISTER', 'SUBSCRIBE', 'NOTIFY', 'MESSAGE', 'INFO', 'REFER',
}
local telnet_options = { '|FF FB|', '|FF FC|', '|FF FD|', '|FF FE|' }

wizard = {
    spells = {
        { service = 'ftp', proto = 'tcp', to_client = { '220*FTP', '220*FileZilla' } },
        { service = 'http', proto = 'tcp', to_server = http_requests, to_client = { 'HTTP/' } },
        { service = 'imap', proto = 'tcp', to_client = { '** OK', '** BYE', '** PREAUTH' } },
        { service = 'pop3', proto = 'tcp', to_client = { '+OK', '-ERR' } },
        { service = 'sip', to_server = sip_requests, to_client = { 'SIP/' } },
        { service = 'smtp', proto = 'tcp', to_server = { 'HELO', 'EHLO' }, to_client = { '220*SMTP', '220*MAIL' } },
        { service = 'ssh', proto = 'tcp', to_server = { 'SSH-' }, to_client = { 'SSH-' } },
    },
    hexes = {
        { service = 'dnp3', proto = 'tcp', to_server = { '|05 64|' }, to_client = { '|05 64|' } },
        { service = 'http2', proto = 'tcp', to_server = { '|50 52 49 20 2a 20 48 54 54 50 2f 32 2e 30|' } },
        { service = 'ssl', proto = 'tcp', to_server = { '|16 03|' }, to_client = { '|16 03|' } },
        { service = 'telnet', proto = 'tcp', to_server = telnet_options, to_client = telnet_options },
    },
    curses = { 'dce_udp', 'dce_tcp', 'dce_smb', 'mms', 's7commplus', 'sslv2' },
}

-- The inspector for a connection, by port where the protocol does not show itself, else by what the wizard found.
binder = {
    { when = { proto = 'udp', ports = '53', role = 'server' }, use = { type = 'dns' } },
    { when = { proto = 'tcp', ports = '53', role = 'server' }, use = { type = 'dns' } },
    { when = { proto = 'tcp', ports = '111', role = 'server' }, use = { type = 'rpc_decode' } },
    { when = { proto = 'tcp', ports = '502', role = 'server' }, use = { type = 'modbus' } },
    { when = { proto = 'udp', ports = '2123 2152', role = 'server' }, use = { type = 'gtp_inspect' } },
    { when = { proto = 'tcp', ports = '2404', role = 'server' }, use = { type = 'iec104' } },
    { when = { proto = 'tcp', ports = '44818', role = 'server' }, use = { type = 'cip' } },
    { when = { proto = 'udp', ports = '2222', role = 'server' }, use = { type = 'cip' } },
    { when = { proto = 'tcp', service = 'dcerpc' }, use = { type = 'dce_tcp' } },
    { when = { proto = 'udp', service = 'dcerpc' }, use = { type = 'dce_udp' } },
    { when = { service = 'netbios-ssn' }, use = { type = 'dce_smb' } },
    { when = { service = 'dce_http_server' }, use = { type = 'dce_http_server' } },
    { when = { service = 'dce_http_proxy' }, use = { type = 'dce_http_proxy' } },
    { when = { service = 'dnp3' }, use = { type = 'dnp3' } },
    { when = { service = 'ftp' }, use = { type = 'ftp_server' } },
    { when = { service = 'ftp-data' }, use = { type = 'ftp_data' } },
    { when = { service = 'http' }, use = { type = 'http_inspect' } },
    { when = { service = 'http2' }, use = { type = 'http2_inspect' } },
    { when = { service = 'imap' }, use = { type = 'imap' } },
    { when = { service = 'mms' }, use = { type = 'mms' } },
    { when = { service = 'pop3' }, use = { type = 'pop' } },
    { when = { service = 's7commplus' }, use = { type = 's7commplus' } },
    { when = { service = 'sip' }, use = { type = 'sip' } },
    { when = { service = 'smtp' }, use = { type = 'smtp' } },
    { when = { service = 'ssh' }, use = { type = 'ssh' } },
    { when = { service = 'ssl' }, use = { type = 'ssl' } },
    { when = { service = 'telnet' }, use = { type = 'telnet' } },
    { use = { type = 'wizard' } },
}

classifications = {
    { name = 'not-suspicious', priority = 3, text = 'Not Suspicious Traffic' },
    { name = 'bad-unknown', priority = 2, text = 'Potentially Bad Traffic' },
    { name = 'attempted-recon', priority = 2, text = 'Attempted Information Leak' },
    { name = 'attempted-dos', priority = 2, text = 'Attempted Denial of Service' },
    { name = 'attempted-user', priority = 1, text = 'Attempted User Privilege Gain' },
    { name = 'attempted-admin', priority = 1, text = 'Attempted Administrator Privilege Gain' },
    { name = 'protocol-command-decode', priority = 3, text = 'Generic Protocol Command Decode' },
    { name = 'web-application-attack', priority = 1, text = 'Web Application Attack' },
    { name = 'trojan-activity', priority = 1, text = 'A Network Trojan was Detected' },
    { name = 'policy-violation', priority = 1, text = 'Potential Corporate Privacy Violation' },
    { name = 'misc-activity', priority = 3, text = 'Misc activity' },
    { name = 'misc-attack', priority = 2, text = 'Misc Attack' },
}

alert_json = {
    file = true,
    limit = 0,
    fields = 'seconds timestamp pkt_num pkt_gen gid sid rev msg class priority action proto '
        .. 'src_addr src_port dst_addr dst_port icmp_type icmp_code',
}
