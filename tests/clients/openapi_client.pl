# OpenAPI::Client makes its methods from the server's own description. OPENAI_BASE_URL names the server.

use strict;
use warnings;

use Mojo::JSON 'true';
use OpenAPI::Client;
use Test::More;

my $description = $ENV{OPENAI_BASE_URL} =~ s{/v1$}{/openapi.json}r;
my $client      = OpenAPI::Client->new($description);

sub created {
  my $tx = $client->createResponse({body => {model => 'text:Hello there', input => 'Hi', @_}});
  is $tx->res->code, 200, 'a response is created' or diag $tx->res->body;
  return $tx->res->json;
}

is $client->base_url, $ENV{OPENAI_BASE_URL}, 'the description says where the server is';

subtest 'getResponse' => sub {
  my $response = created();
  my $tx       = $client->getResponse({response_id => $response->{id}});

  is $tx->res->code, 200;
  is_deeply $tx->res->json, $response, 'it is what the create gave';
  is $tx->res->json('/output/0/content/0/text'), 'Hello there';
};

subtest 'getResponse with a query' => sub {
  my $response = created(background => true);
  my $tx       = $client->getResponse({response_id => $response->{id}, stream => 'true', starting_after => 0});
  my @numbers  = $tx->res->body =~ /"sequence_number":(\d+)/g;

  is $tx->res->headers->content_type, 'text/event-stream; charset=utf-8';
  is_deeply \@numbers, [1 .. 10], 'the events behind the one that was seen';
};

subtest 'getResponse as a promise' => sub {
  my $response = created();
  my $status;
  $client->getResponse_p({response_id => $response->{id}})->then(sub { $status = shift->res->json('/status') })->wait;

  is $status, 'completed';
};

subtest 'deleteResponse' => sub {
  my $response = created();
  my $tx       = $client->deleteResponse({response_id => $response->{id}});

  is $tx->res->code, 200;
  is $tx->res->json('/id'), $response->{id};
  ok $tx->res->json('/deleted'), 'it says that it is deleted';

  my $gone = $client->getResponse({response_id => $response->{id}});
  is $gone->res->code, 404;
  like $gone->res->json('/error/message'), qr/not found/;
};

subtest 'a call without its id' => sub {
  my $tx = $client->getResponse({});

  is $tx->error->{message}, 'Invalid input', 'is not sent';
  is $tx->res->json('/errors/0/path'), '/response_id';
};

done_testing;
